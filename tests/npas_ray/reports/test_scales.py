from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npas_ray.reports.scales import Scale, padded, round_step


def test_positions() -> None:
    scale = Scale(1.0, 3.0, 100, 200)
    assert [scale(value) for value in (0.0, 1.0, 2.0, 3.0, 9.0)] == [100, 100, 150, 200, 200]
    upwards = Scale(0.0, 1.0, 300, 0)  # SVG counts downwards
    assert upwards(0.25) == 225
    assert Scale(1.0, 100.0, 0, 200, logarithmic=True)(10.0) == 100


def test_ticks_are_round() -> None:
    assert Scale(0.018, 0.121, 0, 1).ticks(5) == [0.025, 0.05, 0.075, 0.1]
    assert Scale(0.6, 0.95, 0, 1).ticks(6) == [0.6, 0.7, 0.8, 0.9]
    assert Scale(0.03, 4.0, 0, 1, logarithmic=True).ticks(8) == [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e3), st.integers(2, 9))
def test_there_are_about_as_many_ticks_as_asked_for(low: float, width: float, count: int) -> None:
    scale = Scale(low, low + width * low, 0, 100)
    ticks = scale.ticks(count)
    assert len(ticks) <= count + 1
    assert all(scale.low * (1 - 1e-6) <= tick <= scale.high * (1 + 1e-6) for tick in ticks)


def test_steps_and_padding() -> None:
    assert [round_step(rough) for rough in (0.9, 1.0, 1.1, 2.2, 3.0, 6.0)] == [1, 1, 2, 2.5, 5, 10]
    assert padded(2.0, 2.0, least=0.5) == (1.5, 2.5)
    assert padded(0.0, 10.0, share=0.1) == pytest.approx((-1.0, 11.0))
