"""MNN, converted by its own converter; precision high is fp32.

The converter is called as the extension module `_tools`. The command `mnnconvert` and `MNN.tools` are not used: when
imported, they install a package with the first `pip` on the path and report to their maker.
"""

from __future__ import annotations

from pathlib import Path

import _tools
import MNN
import numpy as np
from numpy.typing import NDArray

CONFIG = {"backend": "CPU", "numThread": 1, "precision": "high", "memory": "high", "power": "high"}


class Engine:
    def __init__(self, model: Path, scratch: Path) -> None:
        converted = scratch / "network.mnn"
        _tools.mnnconvert([
            "mnnconvert", "-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(converted), "--bizCode", "bench",
            "--optimizePrefer", "2",
        ])  # fmt: skip
        if not converted.exists():
            raise RuntimeError(f"MNN's converter does not convert {model}")
        self._interpreter = MNN.Interpreter(str(converted))
        self._session = self._interpreter.createSession(CONFIG)

    def load(self, image: NDArray[np.float32]) -> None:
        source = MNN.Tensor(image.shape, MNN.Halide_Type_Float, image, MNN.Tensor_DimensionType_Caffe)
        self._interpreter.getSessionInput(self._session).copyFrom(source)

    def run(self) -> object:
        return self._interpreter.runSession(self._session)

    def output(self) -> NDArray[np.float32]:
        device = self._interpreter.getSessionOutput(self._session)
        shape = device.getShape()
        host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), MNN.Tensor_DimensionType_Caffe)
        device.copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32).reshape(shape)
