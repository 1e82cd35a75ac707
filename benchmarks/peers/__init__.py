"""The engines that a user would pick instead of ours, each behind one interface and in a process of its own.

Every peer is given the same ONNX file: batch norms folded, fp32, batch 1. It runs on one thread with the options that
its own documentation recommends for latency. Its answer is compared with torch's before it is timed.
A peer is one file of this folder with a class `Engine` (`engine.py`). One that is not installed, or that cannot run a
network, is left out of the timing and named in the result.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """What is told of an engine without importing it."""

    title: str
    packages: tuple[str, ...]  # distributions that it needs; the first one is the engine
    settings: str  # what it is run with, for the reader of a table

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if _version(package) is None]

    def version(self) -> str | None:
        return _version(self.packages[0])


PEERS: dict[str, Peer] = {  # by the name of their file
    "onnxruntime": Peer("ONNX Runtime", ("onnxruntime",), "all graph optimisations, input and output bound"),
    "openvino": Peer("OpenVINO", ("openvino",), "LATENCY hint, 1 stream, f32, one reused request"),
    "ncnn": Peer("ncnn", ("ncnn", "pnnx"), "converted by pnnx; packing, Winograd and SGEMM on, f32"),
    "mnn": Peer("MNN", ("MNN",), "precision, memory and power high; optimizePrefer 2"),
    "litert": Peer("XNNPACK (LiteRT)", ("ai-edge-litert",), "NHWC .tflite, XNNPACK delegate"),
    "torch_compile": Peer("torch.compile", ("torch",), "inductor, freezing, max-autotune, channels_last"),
    "torch_eager": Peer("torch eager", ("torch",), "inference mode, channels_last"),
}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
