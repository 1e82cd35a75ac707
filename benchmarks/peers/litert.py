"""XNNPACK by way of LiteRT: a .tflite file written from the same graph (`tflite.py`), the XNNPACK delegate on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks.peers.tflite import to_tflite
from device_farm.compiler.frontend import import_onnx


class Engine:
    def __init__(self, model: Path, scratch: Path) -> None:
        imported = import_onnx(model)
        self._interpreter = Interpreter(model_content=to_tflite(imported.graph, imported.weights), num_threads=1)
        self._interpreter.allocate_tensors()
        ((self._source,), (self._result,)) = (
            [detail["index"] for detail in details]
            for details in (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        )

    def load(self, image: NDArray[np.float32]) -> None:
        self._interpreter.set_tensor(self._source, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))

    def run(self) -> object:
        return self._interpreter.invoke()

    def output(self) -> NDArray[np.float32]:
        return np.asarray(self._interpreter.get_tensor(self._result)).transpose(0, 3, 1, 2)
