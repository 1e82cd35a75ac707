"""Real images through the artifact on the device."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.artifact import Artifact
from device_farm.errors import RunnerFailed, TransportError
from device_farm.measurement.report import ClassifyReport, parse_report
from device_farm.measurement.session import run_artifact
from device_farm.transport.base import Deadline, Transport

_WIRE = np.dtype("<f4")  # what the runner reads and writes: every target is little-endian


def classify(
    transport: Transport, artifact: Artifact, images: NDArray[np.float32], *, timeout_s: float
) -> NDArray[np.float32]:
    """Outputs [n, output elements] of the artifact for float32 images [n, height, width, channels].

    Raises ValueError for images of another shape or type, RunnerFailed, and what the transport raises.
    """
    if images.ndim != 4 or images.shape[1:] != artifact.input_shape:
        expected = ", ".join(map(str, artifact.input_shape))
        raise ValueError(f"images: expected shape (n, {expected}), got {images.shape}")
    if images.dtype != np.float32:
        raise ValueError(f"images: expected float32, got {images.dtype}")
    deadline = Deadline(timeout_s, f"classification of {len(images)} images by {artifact.key}")
    name = uuid.uuid4().hex
    input_name, output_name = f"{name}.in", f"{name}.out"
    try:
        with tempfile.TemporaryDirectory(prefix="npas-classify-") as directory:
            local = Path(directory) / input_name
            local.write_bytes(images.astype(_WIRE).tobytes())
            transport.push(local, input_name, timeout_s=deadline.remaining_s)
        arguments = ["classify", "--input", input_name, "--output", output_name]
        completed = run_artifact(transport, artifact, arguments, deadline)
        report = parse_report(ClassifyReport, completed, key=artifact.key)
        raw = transport.pull(output_name, timeout_s=deadline.remaining_s)
    finally:
        with contextlib.suppress(TransportError):  # it must not hide what went wrong before
            transport.remove(input_name)
            transport.remove(output_name)
    size = len(images) * artifact.output_elements * _WIRE.itemsize
    if report.images != len(images) or len(raw) != size:
        raise RunnerFailed(
            f"{report.images} images were classified into {len(raw)} bytes, expected {len(images)} into {size}"
        )
    outputs = np.frombuffer(raw, dtype=_WIRE).astype(np.float32)  # [n * output elements]
    return outputs.reshape(len(images), artifact.output_elements)
