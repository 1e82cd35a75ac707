"""A candidate whose program makes phones restart, on emulated phones behind the real adb server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.errors import Poisoned
from device_farm.fleet.entries import Kind
from device_farm.measurement.types import Protocol
from device_farm.testing.phone_lab import PhoneLab
from device_farm.testing.tiny_farm import tiny_network

MODEL = "emu-x86-fast"
BACK_AFTER_S = 1.0


@pytest.fixture(scope="module")
def lab(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLab]:
    config = {
        "compile_with": "device_farm.testing.tiny_farm:compile_tiny",
        # Long enough for somebody outside to see that it runs.
        "protocol": Protocol(warmup_s=0.01, min_time_s=2.0, max_time_s=2.0, deadline_s=30.0),
    }
    with PhoneLab(tmp_path_factory.mktemp("lab"), [MODEL] * 4, name="restarts", pace=1.0, config=config) as made:
        yield made


def known_programs(lab: PhoneLab) -> set[str]:
    return {run.name for phone in lab.phones for run in phone.runs}


def runs_new(lab: PhoneLab, number: int, known: set[str]) -> bool:
    """Whether a phone is in the middle of a program that none has run before."""
    status = lab.phones[number].status
    return status.alive > 0 and status.runs[-1].name not in known


class Restarts(threading.Thread):
    """Restarts phones: `where` it runs a program that none of them has run before. `struck` are those phones."""

    def __init__(self, lab: PhoneLab, where: set[int]) -> None:
        super().__init__(daemon=True)
        self._lab, self._where = lab, where
        self._known = known_programs(lab)
        self._over = threading.Event()
        self.struck: list[int] = []

    def run(self) -> None:
        while not self._over.wait(0.05):
            for number in self._where:
                if runs_new(self._lab, number, self._known):
                    self.struck.append(number)
                    self._lab.phones[number].inject(PhoneFault.REBOOT, value=BACK_AFTER_S)
                    time.sleep(0.2)

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextlib.contextmanager
def restarting(lab: PhoneLab, where: set[int]) -> Iterator[Restarts]:
    thread = Restarts(lab, where)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def all_well(lab: PhoneLab) -> None:
    lab.until(lambda: lab.are_well(0, 1, 2, 3), timeout_s=120)


def test_what_restarts_two_phones_is_poisoned_and_meets_no_third(lab: PhoneLab) -> None:
    all_well(lab)
    for n in range(4):  # all phones have their sentinel's baseline
        lab.farm.measure(tiny_network(1), model=MODEL, replicate=n, timeout_s=120)
    with restarting(lab, {0, 1, 2, 3}) as restarts, pytest.raises(Poisoned, match="failed on 2 different") as caught:
        lab.farm.measure(tiny_network(2), model=MODEL, timeout_s=120)
    assert len(restarts.struck) == len(set(restarts.struck)) == 2
    notes = "\n".join(caught.value.__notes__)
    assert notes.count("RunnerFailed: the device restarted while it ran") == 2
    for number in restarts.struck:
        kinds = [entry.kind for entry in lab.history(number)]
        assert Kind.RESTARTED in kinds and Kind.ACCUSED in kinds
    # It is kept over a death of the broker, and the phones serve on.
    all_well(lab)
    lab.kill_broker()
    with pytest.raises(Poisoned):
        lab.farm.measure(tiny_network(2), model=MODEL, replicate=9, timeout_s=120)
    all_well(lab)
    assert lab.farm.measure(tiny_network(1), model=MODEL, replicate=9, timeout_s=120).latency_ms > 0


def test_a_phone_that_restarts_by_itself_poisons_nothing(lab: PhoneLab) -> None:
    """Whatever it is asked to run: it is the only one, and the candidates are sound."""
    all_well(lab)
    with restarting(lab, {0}) as restarts:
        pending = [lab.farm.submit(tiny_network(10 + n), model=MODEL) for n in range(8)]
        serials = {job.result(180).device.serial for job in pending}
    assert restarts.struck and serials <= set(lab.phones.addresses[1:])


def test_a_phone_that_was_only_unplugged_accuses_nobody(lab: PhoneLab) -> None:
    lab.heal()
    all_well(lab)
    accused = [entry for n in range(4) for entry in lab.history(n) if entry.kind is Kind.ACCUSED]
    pending = lab.farm.submit(tiny_network(30), model=MODEL)
    known = known_programs(lab)
    at: list[int] = []

    def begins() -> bool:
        at.extend(n for n in range(4) if runs_new(lab, n, known))
        return bool(at)

    lab.until(begins)
    number = at[0]
    lab.phones[number].inject(PhoneFault.UNPLUG)
    time.sleep(0.5)
    lab.phones[number].heal()
    assert pending.result(120).latency_ms > 0
    all_well(lab)
    assert accused == [entry for n in range(4) for entry in lab.history(n) if entry.kind is Kind.ACCUSED]
