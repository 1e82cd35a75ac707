"""ONNX Runtime: all graph optimisations, input and output bound once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx


class Engine:
    def __init__(self, model: Path | bytes, scratch: Path | None = None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # as our runner does
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()

    def load(self, image: NDArray[np.float32]) -> None:
        (source,), (result,) = self._session.get_inputs(), self._session.get_outputs()
        self._binding.bind_cpu_input(source.name, image)
        self._binding.bind_output(result.name)

    def run(self) -> object:
        return self._session.run_with_iobinding(self._binding)

    def output(self) -> NDArray[np.float32]:
        (result,) = self._binding.copy_outputs_to_cpu()
        return np.asarray(result)


def answer(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The output for one NCHW image, computed in this process: a second opinion for tests."""
    engine = Engine(model.SerializeToString())
    engine.load(np.ascontiguousarray(image))
    engine.run()
    return engine.output()
