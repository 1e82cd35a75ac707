"""OpenVINO: the LATENCY hint on one stream, in f32; one infer request is used for all calls.

The model is read by `Core.read_model`: the converter `ovc` and its telemetry have no part in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "INFERENCE_NUM_THREADS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "CPU_DENORMALS_OPTIMIZATION": True,
    "ENABLE_CPU_PINNING": False,  # the harness pins, on the core of the round
}


class Engine:
    def __init__(self, model: Path, scratch: Path) -> None:
        core = ov.Core()
        self._request = core.compile_model(core.read_model(model), "CPU", OPTIONS).create_infer_request()

    def load(self, image: NDArray[np.float32]) -> None:
        self._request.set_input_tensor(ov.Tensor(image))

    def run(self) -> object:
        return self._request.infer()

    def output(self) -> NDArray[np.float32]:
        return np.array(self._request.get_output_tensor().data)
