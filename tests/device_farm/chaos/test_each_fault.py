"""Every fault of a phone alone: noticed in time, called by its name, borne by the others; then the phone is back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.testing.fault_scenarios import (
    CONFIG,
    DEADLINE_S,
    MODEL,
    PHONES,
    SCENARIOS,
    SLACK_S,
    FaultLab,
    Scenario,
)

_MACHINE_S = 4.0  # more that this machine may take when others use it, too
_QUICK = (PhoneFault.UNPLUG, PhoneFault.DISK_FULL, PhoneFault.THROTTLED, PhoneFault.FLIPPED)
_WITHIN = 0.03  # of the latency without the fault


@pytest.fixture(scope="module")
def lab(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[FaultLab]:
    folder = tmp_path_factory.mktemp("lab")
    with FaultLab(folder, [MODEL] * PHONES, name="faults", pace=1.0, cache_dir=cache_dir, config=CONFIG) as made:
        yield made


def _parameter(scenario: Scenario) -> Any:
    is_quick = scenario.fault in _QUICK and not scenario.with_orphan
    return pytest.param(scenario, id=scenario.name, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize("scenario", list(map(_parameter, SCENARIOS)))
def test_a_fault(lab: FaultLab, scenario: Scenario) -> None:
    lab.heal()
    lab.until(lambda: lab.are_well(*range(PHONES)), timeout_s=180)  # adb tries a lost phone again every ten seconds
    seen = lab.play(scenario)
    assert seen.error in scenario.errors and seen.blame in scenario.blames, seen
    if seen.error:
        assert seen.noticed_s is not None and seen.noticed_s < DEADLINE_S + SLACK_S + _MACHINE_S
        assert 10 < len(seen.message) < 2000 and seen.message.isprintable()
        assert set(seen.states) - {"healthy"}  # it rests, is quarantined, or is gone
    assert seen.measured == seen.asked and seen.wrong < _WITHIN
    assert seen.back_s is not None and seen.alive == 0


def test_every_fault_has_its_scenario() -> None:
    assert {scenario.fault for scenario in SCENARIOS} | {PhoneFault.ORPHAN} == set(PhoneFault)
