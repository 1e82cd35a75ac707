"""A search of 60 candidates on eight emulated phones, while phones, their adb server and the broker go wrong.

More seeds find more: NPAS_CHAOS_SEEDS=10 python -m pytest -m slow tests/device_farm/chaos/test_chaos_search.py
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.testing.chaos import Blow, Chaos, make_plan
from tests.device_farm.chaos.search_lab import Candidate, SearchLab

FAST, SLOW = "emu-x86-fast", "emu-x86-slow"
MODELS = [FAST, SLOW] * 4
CANDIDATES = 60
DEADLINE_S = 8.0
WITHIN = 0.03  # of the clean run's latency
FAULTS = (
    *(PhoneFault.UNPLUG, PhoneFault.MUTE, PhoneFault.REBOOT, PhoneFault.UNAUTHORIZED),
    *(PhoneFault.DISK_FULL, PhoneFault.THROTTLED, PhoneFault.HANG, PhoneFault.ORPHAN),
    *(PhoneFault.CRASH, PhoneFault.FLIPPED),
)
THROTTLED_PHONE, THROTTLED_TO = 5, 0.8
SEEDS = range(int(os.environ.get("NPAS_CHAOS_SEEDS", "1")))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict[str, Candidate]:
    """The same search on the same phones when nothing goes wrong."""
    with a_lab(tmp_path_factory.mktemp("clean"), cache_dir) as lab:
        lab.start()
        # What it does after its last candidate (seeds of the winner, the report) is not compared.
        lab.until(
            lambda: (lab.count("measured") >= 2 * CANDIDATES and is_told(lab)) or not lab.is_running(), timeout_s=900
        )
        found = {candidate.key: candidate for candidate in lab.candidates()}
        assert len(found) == CANDIDATES, lab.log.read_text()[-3000:]
        assert all(set(candidate.latency_ms) == {FAST, SLOW} for candidate in found.values())
        return found


def is_told(lab: SearchLab) -> bool:
    candidates = lab.candidates()
    return len(candidates) == CANDIDATES and all(len(candidate.latency_ms) == 2 for candidate in candidates)


def is_caught(lab: SearchLab, phone: int) -> bool:
    """Whether the phone was found to be slower than itself."""
    unfit = [row.data["reason"] for row in lab.rows("unfit") if row.serial == lab.phones.addresses[phone]]
    return any("clock" in reason or "its sentinel takes" in reason for reason in unfit)


def a_lab(folder: Path, cache_dir: Path) -> SearchLab:
    return SearchLab(folder, MODELS, cache_dir=cache_dir, candidates=CANDIDATES, deadline_s=DEADLINE_S)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two whole searches
@pytest.mark.parametrize("seed", SEEDS)
def test_a_search_ends_with_every_candidate_measured_once_and_right(
    clean: dict[str, Candidate], tmp_path: Path, cache_dir: Path, seed: int
) -> None:
    blows = (Blow.KILL_SERVER, Blow.KILL_SERVER, Blow.KILL_BROKER)
    plan = make_plan(seed, phones=len(MODELS), faults=FAULTS, blows=blows, rounds=2)
    plan = [step for step in plan if step.what is not PhoneFault.THROTTLED or step.phone != THROTTLED_PHONE]
    with a_lab(tmp_path, cache_dir) as lab:
        lab.start()
        # While all is well, each phone's sentinel has its baseline taken.
        lab.until(lambda: lab.count("baseline") >= len(MODELS) or not lab.is_running(), timeout_s=600)
        # One phone is throttled from now to the end. It is caught in the act, by its clock or by its sentinel.
        lab.phones[THROTTLED_PHONE].inject(PhoneFault.THROTTLED, value=THROTTLED_TO)
        lab.until(lambda: is_caught(lab, THROTTLED_PHONE) or not lab.is_running(), timeout_s=120)
        before = lab.count("measured")
        chaos = Chaos(lab, plan, total=CANDIDATES, answered=lambda: lab.count("measured") - before)
        chaos.start()
        status = lab.finish(900)
        chaos.join()
        print(*chaos.tale, sep="\n")  # shown if this fails
        assert chaos.error is None
        assert status == 0, lab.log.read_text()[-3000:]
        measured = lab.rows("measured")
        print(Counter(row.kind for row in lab.rows()))

        # The same candidates, and every one ended measured on both models, or with a reason.
        found = {candidate.key: candidate for candidate in lab.candidates()}
        assert found.keys() == clean.keys()
        failed = [candidate for candidate in found.values() if set(candidate.latency_ms) != {FAST, SLOW}]
        assert all(candidate.status and candidate.reason for candidate in failed), failed
        assert len(failed) <= CANDIDATES // 20, failed

        # No wrong number.
        ratios = {
            (key, model): latency_ms / clean[key].latency_ms[model]
            for key, candidate in found.items()
            for model, latency_ms in candidate.latency_ms.items()
        }
        assert {pair: ratio for pair, ratio in ratios.items() if abs(ratio - 1) > WITHIN} == {}

        # The phone that is throttled all along was caught; what it said was not believed, or is among the right ones.
        assert is_caught(lab, THROTTLED_PHONE), [row.data["reason"] for row in lab.rows("unfit")]

        # No measurement twice, by the journal and by what the phones themselves ran: a program of which a measurement
        # is on disk is started nowhere again.
        assert set(Counter(row.key for row in measured).values()) == {1}
        assert twice_measured(lab) == []

        # No orphan: nothing is left on a phone.
        lab.until(lambda: not any(phone.status.alive for phone in lab.phones), timeout_s=DEADLINE_S + 10)


def twice_measured(lab: SearchLab) -> list[str]:
    """Programs that a phone began although their measurement was in the journal already."""
    runs = {serial: lab.runs(serial) for serial in lab.phones.addresses}
    often = Counter(run.name for found in runs.values() for run in found).most_common(len(set(MODELS)))
    sentinels = {name for name, _ in often}
    twice = []
    for row in lab.rows("measured"):
        at_s = row.at_s - lab.made_s
        ended = [run for run in runs[row.serial] if run.name not in sentinels and (run.ended_s or at_s) < at_s]
        program = max(ended, key=lambda run: run.started_s).name  # the last before it was written down
        # A second is more than the clocks of the two differ, and less than another lease would have taken.
        twice += [f"{program} at {run.started_s:.1f} s, measured at {at_s:.1f} s"
                  for found in runs.values() for run in found
                  if run.name == program and run.started_s > at_s + 1.0]  # fmt: skip
    return twice
