"""Sessions and phones of a finalist: which are asked for, when it is enough, and what a failure means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from device_farm.errors import NoSuchDevice, Unfit, WrongAnswer
from device_farm.measurement.finalists import Effort, believe
from device_farm.measurement.types import DeviceFacts, Measurement


class Lab:
    """Phones of one model; a session is had on the first one that need not be avoided."""

    def __init__(self, *speeds: float, noise: float = 0.003, seed: int = 0) -> None:
        self.speeds = {f"p{number}": speed for number, speed in enumerate(speeds)}
        self.random = np.random.default_rng(seed)
        self.noise = noise
        self.asked: list[str] = []
        self.fails: dict[int, Exception] = {}

    def phones(self) -> list[str]:
        return list(self.speeds)

    def session(self, replicate: int, avoid: Sequence[str]) -> Measurement:
        assert replicate == len(self.asked)
        if replicate in self.fails:
            raise self.fails[replicate]
        serial = next((serial for serial in self.speeds if serial not in avoid), next(iter(self.speeds)))
        self.asked.append(serial)
        ms = 2.0 / self.speeds[serial] * (1 + self.noise * self.random.standard_normal())
        facts = DeviceFacts(serial=serial, model="pixel", target="aarch64-neon")
        return Measurement("net", facts, "p", ms, ms * 0.99, ms * 1.01, 100, {}, 0.0, (), {})


def test_a_lone_phone_is_asked_in_several_sessions_and_speaks_for_itself_only() -> None:
    lab = Lab(1.0)
    found = believe(lab.session, phones=lab.phones, effort=Effort())
    assert len(lab.asked) == 3 and found.latency.scope == "phones" and found.latency.phones == 1
    assert found.latency.half_width <= 0.03


def test_every_phone_has_its_turn_before_one_has_two() -> None:
    lab = Lab(1.0, 1.02, 0.99, 1.01)
    found = believe(lab.session, phones=lab.phones, effort=Effort(half_width=0.001, most=7))
    counts = Counter(lab.asked)
    assert counts.keys() == set(lab.speeds) and max(counts.values()) - min(counts.values()) <= 1
    assert found.latency.scope == "model" and found.latency.phones == 4
    assert "7 sessions were allowed" in found.ended or "phones cannot say more" in found.ended


def test_two_phones_cannot_say_more_and_that_is_said() -> None:
    lab = Lab(1.0, 1.04)
    found = believe(lab.session, phones=lab.phones, effort=Effort(half_width=0.01, most=20))
    assert "2 phones cannot say more" in found.ended
    assert set(lab.asked) == {"p0", "p1"} and len(lab.asked) == 3  # at least that many
    assert found.latency.half_width > 0.02


def test_one_session_is_enough_where_no_more_is_wanted() -> None:
    lab = Lab(1.0, 1.0)
    found = believe(lab.session, phones=lab.phones, effort=Effort(most=1))
    assert lab.asked == ["p0"] and len(found.sessions) == 1


def test_a_session_that_the_farm_could_not_give_ends_it_with_what_is_known() -> None:
    lab = Lab(1.0, 1.0, 1.0)
    lab.fails[2] = Unfit("hot", retry_after_s=1.0)
    found = believe(lab.session, phones=lab.phones, effort=Effort())
    assert len(found.sessions) == 2 and found.ended == "session 3 failed: Unfit: hot"
    lab = Lab(1.0)
    lab.fails[0] = NoSuchDevice("none")
    with pytest.raises(NoSuchDevice):
        believe(lab.session, phones=lab.phones, effort=Effort())


def test_a_wrong_answer_on_another_phone_is_not_passed_over() -> None:
    lab = Lab(1.0, 1.0)
    lab.fails[1] = WrongAnswer("output 3")
    with pytest.raises(WrongAnswer):
        believe(lab.session, phones=lab.phones, effort=Effort())


def test_impossible_efforts_are_refused() -> None:
    with pytest.raises(ValueError, match="half_width must be above 0, got 0"):
        Effort(half_width=0)
    with pytest.raises(ValueError, match="at least 1, got 0 and 3"):
        Effort(most=0)
