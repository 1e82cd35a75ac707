"""How a user names a network: an ONNX file, a `.pt2` file, or a function that returns a torch module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from device_farm.errors import InvalidGraph

_KINDS = "an .onnx file, a .pt2 file, package.module:function or path/to/file.py:function"
_WEIGHTS_ONLY = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_FUNCTION = re.compile(r"(?P<source>.+):(?P<function>[A-Za-z_][\w.]*)")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Reference:
    """`source` is a file, or the name of a Python module; `function` is looked up in it."""

    kind: Literal["onnx", "pt2", "function"]
    source: str
    function: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """What the text names. Only its form is checked, and that a file is there. Raises InvalidGraph."""
        path = Path(text)
        suffix = path.suffix.lower()
        if suffix in (".onnx", ".pt2"):
            return cls("onnx" if suffix == ".onnx" else "pt2", text)
        match = _FUNCTION.fullmatch(text)
        if match is not None and match["source"].endswith(".py"):
            if not Path(match["source"]).is_file():
                raise InvalidGraph(f"{match['source']}: there is no such file")
            return cls("function", match["source"], match["function"])
        if match is not None and _MODULE.fullmatch(match["source"]):
            return cls("function", match["source"], match["function"])
        if suffix in _WEIGHTS_ONLY:
            raise InvalidGraph(
                f"{text}: holds weights at best, not a network; export one with torch.export.save, or name a function "
                "that builds the module: path/to/file.py:function"
            )
        if suffix == ".py":
            raise InvalidGraph(f"{text}: name the function that returns the module, too: {text}:function")
        found = "a directory" if path.is_dir() else f"a file of another kind ({suffix})" if path.is_file() else None
        reason = f"it is {found}" if found else "there is no such file"
        raise InvalidGraph(f"{text[:200]}: expected {_KINDS}; {reason}")
