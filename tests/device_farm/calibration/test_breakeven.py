from __future__ import annotations

import pytest

from device_farm.calibration.breakeven import Verdict, verdict


@pytest.mark.parametrize(
    ("difference", "std", "expected"),
    [
        (+0.30, 0.10, Verdict.SLOWER),
        (+0.30, 0.15, Verdict.UNCLEAR),  # 2 standard deviations reach zero
        (+0.01, 0.0, Verdict.UNCLEAR),  # surely slower, but by less than anybody would notice
        (-0.30, 0.10, Verdict.PAYS),
        (-0.30, 0.20, Verdict.UNCLEAR),
        (0.0, 0.0, Verdict.UNCLEAR),
    ],
)
def test_a_verdict_needs_more_than_noise(difference: float, std: float, expected: Verdict) -> None:
    assert verdict(difference, std_ms=std, against_ms=1.0) is expected
