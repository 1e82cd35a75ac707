"""A real artifact in half a second and without TVM: the runner around a hand-written network, and its true answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.seeded import INPUT_STREAM, uniform
from device_farm.compiler.target import Target
from device_farm.testing.build import build_artifact

INPUT_SHAPE = (8, 8, 3)
CLASSES = 5
_FILTERS = 8
_MACS = 64 * _FILTERS * 27 + CLASSES * _FILTERS


def tiny_artifact(
    directory: Path, target: Target, *, defines: Sequence[str] = (), seed: int = 7, input_seed: int = 3
) -> Artifact:
    """Builds tiny_plan.c in `directory`. `defines` chooses faults ("FAULT_NAN") and slowness ("REPEATS=100").

    Equal arguments give equal artifacts. Raises CompileError.
    """
    key = "-".join(["tiny", str(seed), *defines]).replace("=", "")
    all_defines = [f'KEY="{key}"', f"SEED={seed}", *defines]
    path = build_artifact(directory, triple=target.triple, defines=all_defines, name=key)
    image = uniform(input_seed, INPUT_STREAM, int(np.prod(INPUT_SHAPE))).reshape(1, *INPUT_SHAPE)
    return Artifact(
        key=key,
        path=path,
        target=target.name,
        input_shape=INPUT_SHAPE,
        output_elements=CLASSES,
        input_seed=input_seed,
        expected_output=tuple(map(float, tiny_reference(image, seed=seed)[0])),
        tolerance=1e-5,
        macs=_MACS,
        kept_macs=_MACS,
    )


def tiny_reference(images: NDArray[np.float32], *, seed: int = 7) -> NDArray[np.float32]:
    """What the network answers: [n, 5] for float32 images [n, 8, 8, 3]."""
    height, width, channels = INPUT_SHAPE
    weight = uniform(seed, 1, _FILTERS * 9 * channels).reshape(_FILTERS, 3, 3, channels).astype(np.float64)
    dense = uniform(seed, 2, CLASSES * _FILTERS).reshape(CLASSES, _FILTERS).astype(np.float64)
    bordered = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))  # [n, 10, 10, 3]
    features = np.zeros((len(images), height, width, _FILTERS))
    for ky in range(3):
        for kx in range(3):
            features += bordered[:, ky : ky + height, kx : kx + width] @ weight[:, ky, kx].T
    pooled = np.maximum(features, 0).mean(axis=(1, 2))  # [n, filters]
    outputs: NDArray[np.float32] = (pooled @ dense.T).astype(np.float32)
    return outputs
