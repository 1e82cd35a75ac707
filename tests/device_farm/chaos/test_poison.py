"""What is wrong with a candidate is held against the candidate, what with a phone against the phone."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def lab(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLab]:
    config = {
        "compile_with": "device_farm.testing.tiny_farm:compile_tiny",
        "protocol": Protocol(warmup_s=0.01, min_time_s=0.02, deadline_s=20.0),
    }
    with PhoneLab(tmp_path_factory.mktemp("lab"), [MODEL] * 4, name="poison", config=config) as made:
        yield made


def runs_that_failed(lab: PhoneLab) -> dict[int, list[int]]:
    """By phone, the exit statuses of programs that did not end well."""
    return {
        number: failed
        for number, phone in enumerate(lab.phones)
        if (failed := [run.exit_status for run in phone.runs if run.exit_status])
    }


def test_a_candidate_that_crashes_two_phones_meets_no_third(lab: PhoneLab) -> None:
    before = runs_that_failed(lab)
    assert before == {}
    crashing = [lab.farm.submit(tiny_network(1, "FAULT_CRASH"), model=MODEL, replicate=n) for n in range(6)]
    well = [lab.farm.submit(tiny_network(2), model=MODEL, replicate=n) for n in range(8)]
    for pending in crashing:
        with pytest.raises(Poisoned, match="failed on 2 different devices") as caught:
            pending.result(120)
        # The evidence: both phones, and what happened.
        notes = "\n".join(caught.value.__notes__)
        assert sum(address in notes for address in lab.phones.addresses) == 2
        assert notes.count("RunnerFailed: the runner ended with exit status 9 (a kernel crashed)") == 2
    harmed = runs_that_failed(lab)
    assert len(harmed) == 2 and all(len(failed) == 1 for failed in harmed.values())
    # Nobody is punished for it, and the phones serve on.
    assert all(pending.result(120).device.model == MODEL for pending in well)
    lab.until(lambda: lab.are_well(0, 1, 2, 3))
    # It is remembered: by the same name, and over a death of the broker.
    lab.kill_broker()
    with pytest.raises(Poisoned):
        lab.farm.measure(tiny_network(1, "FAULT_CRASH"), model=MODEL, replicate=99, timeout_s=120)
    assert {number: len(failed) for number, failed in runs_that_failed(lab).items()} == {
        number: len(failed) for number, failed in harmed.items()
    }
    accused = [entry for number in harmed for entry in lab.history(number) if entry.kind is Kind.ACCUSED]
    assert {entry.serial for entry in accused} == {lab.phones.addresses[number] for number in harmed}


def test_a_candidate_that_answers_wrongly_is_never_a_latency(lab: PhoneLab) -> None:
    with pytest.raises(Poisoned, match="WrongAnswer"):
        lab.farm.measure(tiny_network(3, wrong=True), model=MODEL, timeout_s=120)
    with pytest.raises(Poisoned, match="WrongAnswer"):
        lab.farm.measure(tiny_network(4, "FAULT_NAN"), model=MODEL, timeout_s=120)
    measured = {answer.key.split("/")[0] for answer in lab.answers() if answer.kind == "measured"}
    assert measured and not measured & {"tiny-1003-REPEATS50", "tiny-1004-REPEATS50-FAULT_NAN"}


@pytest.mark.parametrize("fault", [PhoneFault.FLIPPED, PhoneFault.CRASH])
def test_a_phone_that_computes_wrongly_is_the_culprit_not_its_candidates(lab: PhoneLab, fault: PhoneFault) -> None:
    lab.until(lambda: lab.are_well(0, 1, 2, 3), timeout_s=120)
    for phone in range(2):
        lab.phones[phone].inject(fault)
    first = 100 if fault is PhoneFault.FLIPPED else 200
    pending = [lab.farm.submit(tiny_network(first + n), model=MODEL) for n in range(12)]
    sound = set(lab.phones.addresses[2:])
    assert {job.result(120).device.serial for job in pending} <= sound
    for phone in range(2):
        entries = lab.history(phone)
        assert any(e.kind is Kind.UNFIT and "it fails its sentinel" in e.data["fault"]["message"] for e in entries)
    lab.heal()
