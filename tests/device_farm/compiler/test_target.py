"""Which processor is generated for, at which precision."""

from __future__ import annotations

import pytest

from device_farm.compiler import AVX2, NEON, NEON_FP16, TARGETS, Precision, host_target
from device_farm.compiler.target import at_precision, host_targets
from device_farm.errors import CompileError

CORTEX_A53 = ["fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid"]
CORTEX_A55 = [*CORTEX_A53, "atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp"]


def test_precision_decides_the_target() -> None:
    for target in TARGETS.values():
        assert at_precision(target, Precision.FP32, ()) == target
    assert at_precision(NEON, Precision.FP16, CORTEX_A55) == NEON_FP16
    assert NEON_FP16.simd_lanes == 2 * NEON.simd_lanes


def test_a_processor_that_lacks_half_precision_is_told_so() -> None:
    with pytest.raises(CompileError, match="this processor lacks asimdhp and fphp: choose precision fp32"):
        at_precision(NEON, Precision.FP16, CORTEX_A53)
    with pytest.raises(CompileError, match="lacks asimdhp:"):
        at_precision(NEON, Precision.FP16, [*CORTEX_A53, "fphp"])
    with pytest.raises(CompileError, match="for Arm processors, this one is x86_64-avx2: choose precision fp32"):
        at_precision(AVX2, Precision.FP16, ())


def test_this_machine_runs_its_own_target() -> None:
    assert host_targets()[0] == host_target()
    assert len({target.triple for target in host_targets()}) == 1
