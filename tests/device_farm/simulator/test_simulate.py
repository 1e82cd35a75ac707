"""Whole farms: the real pool and fleet under everything that befalls phones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from device_farm.fleet.words import Policy
from device_farm.simulator.faults import FaultRates, PhoneFault
from device_farm.simulator.report import Report
from device_farm.simulator.scenario import FLAGSHIP, MIDRANGE, PhoneModel, Scenario, Search, lab
from device_farm.simulator.simulate import simulate
from device_farm.simulator.thermal import ThermalModel

ROOT = Path(__file__).parents[3]
CALM = FaultRates()
STORM = FaultRates.all_at(1.5, spell_s=60.0)


def check(report: Report) -> None:
    """What holds whatever happens."""
    assert report.lost == 0 and report.doubled == 0
    assert report.wrong_numbers == 0 and report.largest_error < 0.03
    assert report.most_harmed <= 2
    assert report.measured + sum(report.failed.values()) == report.jobs


def test_a_calm_day_wastes_nothing() -> None:
    report = simulate(lab(12, 600, faults=CALM, crashing=0.0), seed=0)
    check(report)
    assert report.measured == report.leases == report.jobs and report.failed == {}
    assert report.utilisation > 0.99 and report.restarts == 0


def test_a_storm_loses_nothing_and_reports_no_wrong_number() -> None:
    report = simulate(lab(30, 3000, faults=STORM, crashing=0.02), seed=1)
    check(report)
    assert report.restarts > 10 and report.retries > 30 and report.fenced > 0 and report.unfit > 10
    assert set(report.failed) <= {"Poisoned", "DeviceGone", "DeadlineExceeded", "Refused", "Unstable", "WrongAnswer"}
    assert report.measured > 0.9 * report.jobs


@pytest.mark.parametrize("fault", list(PhoneFault))
def test_each_fault_alone_is_survived(fault: PhoneFault) -> None:
    rates = FaultRates(**{fault.value: 3.0}, spell_s=60.0)
    report = simulate(lab(9, 450, faults=rates, crashing=0.0), seed=2)
    check(report)
    assert report.measured >= 0.95 * report.jobs


def test_the_same_seed_is_the_same_report_in_another_process_too() -> None:
    program = (
        "import json; from device_farm.simulator.faults import FaultRates; "
        "from device_farm.simulator.scenario import lab; from device_farm.simulator.simulate import simulate; "
        "print(json.dumps(simulate(lab(12, 400, faults=FaultRates.all_at(2.0), crashing=0.02), 3).to_json()))"
    )
    reports = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(n), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for n in range(2)
    }
    here = simulate(lab(12, 400, faults=FaultRates.all_at(2.0), crashing=0.02), 3)
    assert reports == {json.dumps(here.to_json()) + "\n"}
    assert simulate(lab(12, 400, faults=FaultRates.all_at(2.0), crashing=0.02), 4) != here


def test_searches_share_the_farm_by_their_weights() -> None:
    """One asks for everything at once, the other for a few at a time and short ones."""
    searches = (
        Search("burst", ("midrange",), 600, 600, measure_s=20.0),
        Search("steady", ("midrange",), 2400, 60, measure_s=5.0),
    )
    policy = Policy(shares={"steady": 2.0})
    report = simulate(Scenario(((MIDRANGE, 10),), searches, policy=policy), seed=0)
    check(report)
    ratio = report.searches["steady"].device_s / report.searches["burst"].device_s
    assert ratio == pytest.approx(2.0, rel=0.06)


def test_an_urgent_search_goes_first_and_the_others_are_not_starved() -> None:
    searches = (
        Search("background", ("midrange",), 100, 100),
        Search("urgent", ("midrange",), 3000, 3000, priority=5),
    )
    policy = Policy(patience_s=100.0, overdue_every=10)
    report = simulate(Scenario(((MIDRANGE, 10),), searches, policy=policy), seed=0)
    check(report)
    background, urgent = report.searches["background"], report.searches["urgent"]
    # A tenth of the leases once it has waited: 100 of its own are 1000 of all.
    assert background.finished_s < 0.45 * urgent.finished_s
    assert background.wait_longest_s > 100


def test_hot_phones_rest_and_their_jobs_go_to_cool_ones() -> None:
    hot = PhoneModel("same", thermal=ThermalModel(rise_c=22.0, tau_s=120.0))
    report = simulate(Scenario(((hot, 8),), (Search("s", ("same",), 400, 400),)), seed=0)
    check(report)
    assert report.measured == report.jobs and report.unfit > 20 and report.retries == report.unfit
    assert report.serving < 0.9


def test_a_farm_without_a_fit_phone_says_so_in_the_end() -> None:
    """In a room that is too warm for measuring every job ends with the reason, none is measured."""
    policy = Policy(unfit_wait_s=600)
    scenario = Scenario(((FLAGSHIP, 3),), (Search("s", ("flagship",), 20, 20),), policy=policy, ambient_c=45.0)
    report = simulate(scenario, seed=0)
    assert (report.measured, report.failed, report.lost) == (0, {"Unfit": 20}, 0)
    assert report.seconds < 5 * 600


def test_a_broker_that_cannot_keep_up_is_seen_in_the_utilisation() -> None:
    scenario = lab(60, 1200, faults=CALM, crashing=0.0)
    # Towards the end of a queue candidates wait to be run on their third model: the price of the poison bound, which
    # depends on the order of things. Without the bound nothing is lost.
    assert simulate(scenario, 0).utilisation > 0.97
    unbounded = replace(scenario, policy=replace(scenario.policy, poison_devices=3))
    assert simulate(unbounded, 0).utilisation > 0.999
    assert simulate(replace(scenario, broker_s=0.5), 0).utilisation < 0.4


@pytest.mark.slow
def test_a_thousand_phones_and_a_hundred_thousand_leases() -> None:
    report = simulate(lab(1000, 100_000), seed=0)
    check(report)
    assert report.leases > 99_000 and report.utilisation > 0.95
