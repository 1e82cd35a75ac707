"""A network by its reference, loaded in a process of its own.

Files may be damaged or hostile, TVM and protobuf are C++, and a user's function may do anything. So the work is done in
a child with a limit on memory and on time; whatever happens to it is one clear error here. No pickle comes back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import device_farm
from device_farm import errors
from device_farm.compiler.frontend.reference import Reference
from device_farm.compiler.frontend.walk import Imported
from device_farm.compiler.graph import Graph, Shape
from device_farm.errors import CompileError, FarmError, InvalidGraph

TIMEOUT_S = 600.0
_MAX_MESSAGE = 1_000


@dataclass(frozen=True)
class Loaded:
    """A network, and how far our graph is from what it was made from.

    `source_error` is the largest difference of the outputs for one random image, relative to the largest output, in
    float32, between the host's reference on the graph and `checked_with`: torch or ONNX Runtime. Both are None if there
    was nothing to compare with (an ONNX file, and no onnxruntime installed).
    """

    imported: Imported
    source_error: float | None
    checked_with: str | None


def load_network(text: str, input_shape: Shape | None = None, *, timeout_s: float = TIMEOUT_S) -> Loaded:
    """The network that the text names (reference.py); `input_shape` is for those that do not know their image.

    Raises:
        InvalidGraph: no such file, damaged, wrong types or shapes, the function failed, more memory or time than any
            network of that size needs.
        UnsupportedOperator: the message names layer, operator and way out.
        CompileError: our graph does not compute what the network computes: a defect of the front end.
    """
    reference = Reference.parse(text)
    with tempfile.TemporaryDirectory(prefix="npas-load-") as name:
        folder = Path(name)
        job = {
            "kind": reference.kind, "source": reference.source, "function": reference.function,
            "input": input_shape, "folder": name, "memory_bytes": _memory_limit(reference),
        }  # fmt: skip
        status = _run(json.dumps(job), folder, timeout_s=timeout_s)
        facts = _facts(folder, reference, status)
        from safetensors.numpy import load_file

        graph = Graph.from_json(json.loads((folder / "graph.json").read_text()))
        weights = load_file(folder / "weights.safetensors")
    return Loaded(Imported(graph, weights), facts["source_error"], facts["checked_with"])


def _memory_limit(reference: Reference) -> int:
    """Bytes of private memory: what libraries need, and some copies of the file; a function may have nearly all."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = machine * 8 // 10
    if reference.kind == "function":
        return most
    path = Path(reference.source)
    size = path.stat().st_size if path.is_file() else 0
    beside = sum(item.stat().st_size for item in path.parent.glob("*.data") if item.is_file()) if size else 0
    return min(most, 6 * 1024**3 + 16 * (size + beside))


def _run(job: str, folder: Path, *, timeout_s: float) -> int:
    """The child's exit status. It ends when its stdin does, so it cannot outlive this process."""
    home = str(Path(device_farm.__file__).parents[1])
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH")]))
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch")  # torch makes it on import and leaves it
    command = [sys.executable, "-P", "-m", "device_farm.compiler.frontend.loader", job]
    with (folder / "said").open("wb") as said:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the child
        )
        with child:
            try:
                return child.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                raise InvalidGraph(f"the network was not loaded within {timeout_s:g} s") from error
            finally:
                child.kill()


def _facts(folder: Path, reference: Reference, status: int) -> dict[str, Any]:
    """What the child found out. Raises what it says, or says how it ended."""
    try:
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    except (OSError, ValueError):
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        said = (folder / "said").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise InvalidGraph(
            f"{reference.source}: loading it ended the process that did it ({how}): {said[-1][:200]}"
        ) from None
    if "error" in facts:
        kind = getattr(errors, facts["error"], None)
        if not (isinstance(kind, type) and issubclass(kind, FarmError)):
            kind = CompileError
        raise kind(facts["message"][:_MAX_MESSAGE])
    return facts
