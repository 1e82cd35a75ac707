"""The kernel that measures the peak computes what it says; how fast it is, benchmarks say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_farm.compiler import NEON, Target
from device_farm.compiler.peak import compile_peak
from device_farm.compiler.testing import Answer, native_targets


@pytest.mark.parametrize(
    "target",
    [
        *(pytest.param(t, id=t.name) for t in native_targets()),
        pytest.param(NEON, marks=pytest.mark.qemu, id=NEON.name),
    ],
)
def test_every_chain_ends_at_the_input(target: Target, answer: Answer, cache_dir: Path, tmp_path: Path) -> None:
    artifact = compile_peak(target, out_dir=tmp_path / "out", cache_dir=cache_dir)
    image = np.linspace(-3, 5, target.simd_lanes, dtype=np.float32)
    assert answer(artifact, image[None])[0] == pytest.approx(image, abs=1e-5)
    assert artifact.macs >= 10_000 * target.simd_lanes
