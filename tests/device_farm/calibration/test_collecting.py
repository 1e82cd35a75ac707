from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_farm.calibration.collecting import ATTEMPTS, Case, collect, is_complete
from device_farm.calibration.file import Identity
from device_farm.calibration.journal import Journal, open_journal
from device_farm.compiler.graph import Conv2d, Graph, Input, Shape
from device_farm.errors import CalibrationError, DeviceGone, Unstable, WrongAnswer
from device_farm.measurement.types import DeviceFacts, Measurement

IDENTITY = Identity("compiler", "target", "local", "protocol", {})
FACTS = DeviceFacts("serial", "local", "target")


def graph_of(name: str) -> Graph:
    return Graph((Input("input", (), Shape(1, 1, 1)), Conv2d(name, ("input",), 1)))


def measured(*, quiet: bool = True, profiled_ms: float = 1.02) -> Measurement:
    conditions: dict[str, Any] = {"quiet": quiet, "taken_at": "now"}
    return Measurement("key", FACTS, "protocol", 1.0, 0.98, 1.02, 100, {}, 0.0, (("a", profiled_ms),), conditions)


class Device:
    """Answers as it is told, and remembers who asked for what."""

    def __init__(self, answers: Callable[[str, int], Measurement]) -> None:
        self.answers = answers
        self.asked: Counter[tuple[str, int]] = Counter()
        self.waiting = self.most_waiting = 0

    def submit(self, graph: Graph, seed: int) -> Callable[[], Measurement]:
        name = graph.output.name
        self.asked[name, seed] += 1
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)

        def wait() -> Measurement:
            self.waiting -= 1
            return self.answers(name, seed)

        return wait


def cases(names: str) -> list[Case]:
    return [Case((name,), partial(graph_of, name)) for name in names]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path / "j", IDENTITY) as opened:
        yield opened


def test_every_network_is_measured_once_and_some_at_a_time(journal: Journal) -> None:
    device = Device(lambda name, seed: measured())
    told: list[str] = []
    collect(
        cases("abcdef"), device.submit, journal, at_once=lambda: 3, told=lambda record: told.append(record.label[0])
    )
    assert device.asked == {(name, 0): 1 for name in "abcdef"}
    assert device.most_waiting == 3
    assert told == list("abcdef")
    record = journal.records[("a",)]
    assert (record.latency_ms, record.steps_ms) == (1.0, (("a", 1.02),))
    assert record.relative_error == pytest.approx(0.04 / 3.92)


def test_what_the_journal_knows_is_not_measured_again(journal: Journal) -> None:
    collect(cases("abc"), Device(lambda name, seed: measured()).submit, journal, at_once=lambda: 2)
    device = Device(lambda name, seed: measured())
    collect(cases("abcd"), device.submit, journal, at_once=lambda: 2)
    assert device.asked == {("d", 0): 1}


def test_a_shared_core_is_tried_again_with_another_seed(journal: Journal) -> None:
    def answer(name: str, seed: int) -> Measurement:
        if name == "never" or (name == "b" and seed == 0):
            return measured(quiet=False)
        if name == "c" and seed == 0:
            return measured(profiled_ms=0.8)  # all steps together are faster than the whole: the whole was disturbed
        if name == "u":
            raise Unstable("the samples vary")
        return measured()

    device = Device(answer)
    collect([*cases("abcdu"), Case(("never",), lambda: graph_of("never"))], device.submit, journal, at_once=lambda: 2)
    assert device.asked == {
        **{(name, 0): 1 for name in "acd"}, ("c", 1): 1,
        ("b", 0): 1, ("b", 1): 1,
        **{(name, seed): 1 for name in ("never", "u") for seed in range(ATTEMPTS)},
    }  # fmt: skip
    assert journal.records[("b",)].quiet
    assert not journal.records[("never",)].quiet
    assert journal.records[("never",)].latency_ms == 1.0
    assert journal.records[("u",)].failure == "the samples vary"
    every = [*cases("abcdu"), Case(("never",), lambda: graph_of("never"))]
    assert is_complete(every, journal)
    assert not is_complete([*every, *cases("x")], journal)
    assert not is_complete(every, journal, attempts=ATTEMPTS + 1)


def test_a_network_that_is_at_fault_is_written_down_as_that(journal: Journal) -> None:
    def answer(name: str, seed: int) -> Measurement:
        if name == "b":
            raise WrongAnswer("output 3 is 7")
        return measured()

    device = Device(answer)
    collect(cases("abcd"), device.submit, journal, at_once=lambda: 1)
    assert journal.records[("b",)].failure == "WrongAnswer: output 3 is 7"
    assert device.asked["b", 0] == 1


def test_when_the_farm_breaks_nothing_measured_is_lost(journal: Journal) -> None:
    def answer(name: str, seed: int) -> Measurement:
        if name == "c":
            raise DeviceGone("unplugged")
        return measured()

    with pytest.raises(DeviceGone):
        collect(cases("abcde"), Device(answer).submit, journal, at_once=lambda: 1)
    assert list(journal.records) == [("a",), ("b",)]
    device = Device(lambda name, seed: measured())
    collect(cases("abcde"), device.submit, journal, at_once=lambda: 1)
    assert set(device.asked) == {("c", 0), ("d", 0), ("e", 0)}


def test_failing_on_and_on_is_no_calibration(journal: Journal) -> None:
    def answer(name: str, seed: int) -> Measurement:
        if name in "abc":
            raise WrongAnswer("nonsense")
        return measured()

    with pytest.raises(CalibrationError, match=r"3 of 5 networks could not be measured.*nonsense"):
        collect(cases("abcde"), Device(answer).submit, journal, at_once=lambda: 1)
