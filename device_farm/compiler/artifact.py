"""The executable for one target, and what the host knows of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Artifact:
    """One static executable on disk.

    `key` hashes graph, target, weights (or their seed) and compiler version: equal keys are equal programs.
    `expected_output` is the host reference's answer to the seeded input, the flat NHWC output of the graph; a device
    whose answer is further away than `tolerance` (relative to the largest expected magnitude) computed wrongly.
    """

    key: str
    path: Path
    target: str
    input_shape: tuple[int, int, int]  # height, width, channels
    output_elements: int
    input_seed: int
    expected_output: tuple[float, ...]
    tolerance: float
    macs: int
    kept_macs: int
    threads: int = 1  # that it computes with
