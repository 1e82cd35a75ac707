"""Eight emulated phones, two searches, and everything that goes wrong with phones, their adb server and the broker."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.errors import FarmError, LeaseError, Poisoned
from device_farm.fleet.farm import Farm, PendingMeasurement
from device_farm.fleet.words import Policy
from device_farm.measurement.types import Measurement, Protocol
from device_farm.testing.chaos import Blow, Chaos, make_plan
from device_farm.testing.phone_lab import NAMESPACE, PhoneLab, small_network

FAST, SLOW = "emu-x86-fast", "emu-x86-slow"
MODELS = [FAST, SLOW] * 4
CANDIDATES = [small_network(filters, kept=kept) for kept in range(3, 18) for filters in (16, 32, 48, 64)]
DEADLINE_S = 8.0
WITHIN = 0.03  # of the clean run's latency
FAULTS = (
    PhoneFault.UNPLUG,
    PhoneFault.MUTE,
    PhoneFault.REBOOT,
    PhoneFault.UNAUTHORIZED,
    PhoneFault.OFFLINE,
    PhoneFault.DISK_FULL,
    PhoneFault.THROTTLED,
    PhoneFault.HANG,
    PhoneFault.CRASH,
    PhoneFault.FLIPPED,
    PhoneFault.ORPHAN,
    PhoneFault.SLOW,
    PhoneFault.REFUSE,
    PhoneFault.NOISY,
    PhoneFault.GARBAGE,
    PhoneFault.ENDLESS,
    PhoneFault.WRONG_LENGTHS,
    PhoneFault.LINK_GARBAGE,
)
CONFIG = {
    "compile_workers": 2,
    "connect_timeout_s": 20.0,
    "protocol": Protocol(warmup_s=0.01, min_time_s=0.1, deadline_s=DEADLINE_S),
    "policy": Policy(cool_s=0.2, max_cool_s=2.0, absent_s=120.0, quarantine_s=4.0),
}
# More find more: NPAS_CHAOS_SEEDS=10 python -m pytest tests/device_farm/chaos/test_chaos.py
SEEDS = range(int(os.environ.get("NPAS_CHAOS_SEEDS", "1")))
Answers = dict[int, Measurement | FarmError]


def model_of(number: int) -> str:
    return MODELS[number % 2]


def ask(lab: PhoneLab, client: str, numbers: Iterable[int]) -> dict[int, PendingMeasurement]:
    farm = Farm.connect(lab.farm.name, namespace=NAMESPACE, client=client)
    return {number: farm.submit(CANDIDATES[number], model=model_of(number)) for number in numbers}


def answers(pending: dict[int, PendingMeasurement], timeout_s: float = 300.0) -> Answers:
    until_s = time.monotonic() + timeout_s
    found: Answers = {}
    for number, asked in pending.items():
        try:
            found[number] = asked.result(max(1.0, until_s - time.monotonic()))
        except FarmError as error:
            found[number] = error
    return found


def programs(lab: PhoneLab) -> int:
    return sum(phone.status.started for phone in lab.phones)


@pytest.fixture(scope="module")
def clean(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> dict[int, float]:
    """Latencies in ms of all candidates on the same phones when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("clean")
    with PhoneLab(folder, MODELS, name="clean", cache_dir=cache_dir, config=CONFIG) as lab:
        found = answers(ask(lab, "clean", range(len(CANDIDATES))))
        assert len(lab.answers()) == len(CANDIDATES)
        return {number: measured(answer).latency_ms for number, answer in found.items()}


def measured(answer: Measurement | FarmError) -> Measurement:
    assert isinstance(answer, Measurement), answer
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_every_candidate_ends_measured_once_and_right_or_with_a_reason(
    clean: dict[int, float], tmp_path: Path, cache_dir: Path, seed: int
) -> None:
    plan = make_plan(
        seed,
        phones=len(MODELS),
        faults=FAULTS,
        blows=(Blow.KILL_SERVER, Blow.KILL_SERVER, Blow.KILL_BROKER),
        rounds=2,
    )
    with PhoneLab(tmp_path, MODELS, name=f"chaos{seed}", cache_dir=cache_dir, pace=1.0, config=CONFIG) as lab:
        with ThreadPoolExecutor() as pool:  # while all is well, each phone's sentinel has its baseline taken
            list(pool.map(lab.farm.calibrate, lab.phones.addresses))
        chaos = Chaos(lab, plan, total=len(CANDIDATES), answered=lambda: len(lab.answers()))
        chaos.start()
        one, two = ask(lab, "one", range(40)), ask(lab, "two", range(20, 60))
        of_one, of_two = answers(one), answers(two)
        chaos.join()
        print(*chaos.tale, sep="\n")  # shown if this fails
        assert chaos.error is None
        lab.heal()

        # Every candidate ended measured, or with a reason that says what happened where.
        found = of_one | of_two
        assert sorted(found) == list(range(len(CANDIDATES)))
        failed = {number: error for number, error in found.items() if isinstance(error, FarmError)}
        for error in failed.values():
            assert not isinstance(error, LeaseError) or isinstance(error, Poisoned), error
            assert error.__notes__, error  # the evidence: lease, phone, error

        # No wrong number.
        ratios = {n: answer.latency_ms / clean[n] for n, answer in found.items() if isinstance(answer, Measurement)}
        assert len(ratios) >= 0.8 * len(CANDIDATES)
        assert {n: ratio for n, ratio in ratios.items() if abs(ratio - 1) > WITHIN} == {}

        # Nothing is measured twice: one answer for a key; what both asked is one session; asked again, nothing runs.
        assert set(Counter(answer.key for answer in lab.answers()).values()) == {1}
        assert all(of_one[n] == of_two[n] for n in range(20, 40) if n in ratios)
        lab.until(lambda: lab.are_well(*range(len(MODELS))))
        ran = programs(lab)
        again = answers(ask(lab, "again", sorted(ratios)))
        assert again == {n: found[n] for n in ratios}
        assert programs(lab) == ran

        # No orphan: nothing is left on a phone.
        lab.until(lambda: not any(phone.status.alive for phone in lab.phones), timeout_s=DEADLINE_S + 10)
        print(Counter(entry.kind for n in range(len(MODELS)) for entry in lab.history(n)))
