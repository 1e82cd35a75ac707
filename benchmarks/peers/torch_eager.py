"""torch without compiling: inference mode, channels_last, batch norms folded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.torch_module import GraphModule
from device_farm.compiler.frontend import import_onnx


class Engine:
    def __init__(self, model: Path, scratch: Path) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        imported = import_onnx(model)
        module = GraphModule(imported.graph, imported.weights).eval().requires_grad_(False)
        self._function = self.prepared(module.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def prepared(self, module: torch.nn.Module) -> torch.nn.Module:
        return module

    def load(self, image: NDArray[np.float32]) -> None:
        self._image = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)

    def run(self) -> object:
        with torch.inference_mode():
            self._output: torch.Tensor = self._function(self._image)
        return None

    def output(self) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._output.numpy()
        return result
