"""A candidate whose program makes phones restart, on emulated phones behind the real adb server."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from device_farm.emulator.faults import PhoneFault
from device_farm.errors import Poisoned
from device_farm.fleet.entries import Kind
from device_farm.fleet.farm import PendingMeasurement
from device_farm.measurement.types import Protocol
from device_farm.testing.phone_lab import PhoneLab
from device_farm.testing.tiny_farm import tiny_network

MODEL = "emu-x86-fast"
PHONES = range(4)
DELAYS_S, JOBS = (0.0, 0.2, 0.4, 0.6), 8


@pytest.fixture(scope="module")
def lab(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLab]:
    config = {
        "compile_with": "device_farm.testing.tiny_farm:compile_tiny",
        "protocol": Protocol(warmup_s=0.01, min_time_s=0.3, max_time_s=0.5, deadline_s=20.0),
    }
    models = [MODEL] * len(PHONES)
    with PhoneLab(tmp_path_factory.mktemp("lab"), models, name="restarts", pace=1.0, config=config) as made:
        yield made


def all_well(lab: PhoneLab) -> None:
    lab.until(lambda: lab.are_well(*PHONES), timeout_s=120)


def told(lab: PhoneLab, kind: Kind) -> list[str]:
    """By which phones, in no particular order."""
    return [entry.serial for number in PHONES for entry in lab.history(number) if entry.kind is kind]


def befall_at_work(lab: PhoneLab, number: int, befall: Callable[[], None], *, first_network: int) -> None:
    """Several times, at different moments of a job that the phone has; what it had is measured all the same.

    It has to last: between two calls of a job, a phone may be gone for a moment and nobody sees it.
    """
    new = itertools.count(first_network)

    def submit() -> PendingMeasurement:
        return lab.farm.submit(tiny_network(next(new)), model=MODEL)

    for delay_s in DELAYS_S:
        lab.farm.release(lab.phones.addresses[number])
        lab.until(lambda: lab.are_well(number), timeout_s=120)
        pending = [submit() for _ in range(JOBS)]
        while not lab.has_job(number):  # the others may be so quick that nothing is left for it
            if len(ray.wait([job.ref for job in pending], num_returns=JOBS, timeout=0.05)[0]) == JOBS:
                pending = [submit() for _ in range(JOBS)]
        time.sleep(delay_s)
        befall()
        assert all(job.result(240).latency_ms > 0 for job in pending)


def test_what_restarts_two_phones_is_poisoned_and_meets_no_third(lab: PhoneLab) -> None:
    all_well(lab)
    boots_before = told(lab, Kind.RESTARTED)
    assert boots_before == []
    with pytest.raises(Poisoned, match="failed on 2 different devices") as caught:
        lab.farm.measure(tiny_network(2, "FAULT_RESTART"), model=MODEL, timeout_s=240)
    notes = "\n".join(caught.value.__notes__)
    assert notes.count("RunnerFailed: the device restarted while it ran") == 2
    restarted = told(lab, Kind.RESTARTED)
    assert len(restarted) == len(set(restarted)) == 2
    assert sorted(told(lab, Kind.ACCUSED)) == sorted(restarted)
    # It is kept over a death of the broker, nobody is punished for it, and the phones serve on.
    all_well(lab)
    lab.kill_broker()
    with pytest.raises(Poisoned):
        lab.farm.measure(tiny_network(2, "FAULT_RESTART"), model=MODEL, replicate=9, timeout_s=120)
    all_well(lab)
    assert lab.farm.measure(tiny_network(1), model=MODEL, timeout_s=120).latency_ms > 0
    assert told(lab, Kind.RESTARTED) == restarted


def test_a_phone_that_restarts_by_itself_poisons_nothing(lab: PhoneLab) -> None:
    all_well(lab)
    before = Counter(told(lab, Kind.RESTARTED))
    befall_at_work(lab, 0, lambda: lab.phones[0].inject(PhoneFault.REBOOT, value=2.0), first_network=100)
    lab.until(lambda: len(told(lab, Kind.RESTARTED)) > before.total())
    assert set(Counter(told(lab, Kind.RESTARTED)) - before) == {lab.phones.addresses[0]}


def test_phones_that_are_unplugged_again_and_again_accuse_nobody(lab: PhoneLab) -> None:
    lab.heal()
    all_well(lab)
    before = told(lab, Kind.ACCUSED), told(lab, Kind.RESTARTED)
    lost = len(told(lab, Kind.STRUCK))

    def unplug() -> None:
        lab.phones[1].inject(PhoneFault.UNPLUG)
        time.sleep(1.5)
        lab.phones[1].heal()

    befall_at_work(lab, 1, unplug, first_network=200)
    assert len(told(lab, Kind.STRUCK)) > lost
    assert (told(lab, Kind.ACCUSED), told(lab, Kind.RESTARTED)) == before
