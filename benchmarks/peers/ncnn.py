"""ncnn, converted by pnnx (its own converter): Winograd, SGEMM and packed layouts on as by default, in f32."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import ncnn
import numpy as np
import onnx
import pnnx
from numpy.typing import NDArray

REDUCED = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage", "int8_inference")


class Engine:
    def __init__(self, model: Path, scratch: Path) -> None:
        _convert(model, scratch)
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = 1
        for feature in REDUCED:
            setattr(options, f"use_{feature}", False)
        # without pools every blob of every call is allocated anew
        self._pools = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
        options.blob_allocator, options.workspace_allocator = self._pools
        for load, name in ((self._net.load_param, "network.param"), (self._net.load_model, "network.bin")):
            if load(str(scratch / name)):
                raise RuntimeError(f"ncnn does not read what pnnx wrote for {model}")

    def load(self, image: NDArray[np.float32]) -> None:
        self._image = image[0]  # a Mat is a view
        self._input = ncnn.Mat(self._image)

    def run(self) -> object:
        extractor = self._net.create_extractor()
        extractor.input("in0", self._input)
        code, self._output = extractor.extract("out0")
        return code

    def output(self) -> NDArray[np.float32]:
        return np.array(self._output)[None]


def _convert(model: Path, scratch: Path) -> None:
    (source,) = onnx.load(model, load_external_data=False).graph.input
    dims = ",".join(str(dim.dim_value) for dim in source.type.tensor_type.shape.dim)
    command = [
        os.fspath(pnnx.EXEC_PATH), str(model), f"inputshape=[{dims}]", "fp16=0",
        *(f"{kind}={scratch / kind}" for kind in ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy")),
        f"ncnnparam={scratch / 'network.param'}", f"ncnnbin={scratch / 'network.bin'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
    if done.returncode:
        raise RuntimeError(f"pnnx ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
