"""A seeded plan of what goes wrong with a farm of emulated phones, and whoever carries it out. For tests."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from device_farm.emulator.faults import PhoneFault
from device_farm.testing.phones import EmulatedPhones


class Blow(StrEnum):
    """What befalls more than a phone."""

    KILL_SERVER = "kill the adb server"
    KILL_BROKER = "kill the broker"


class Victim(Protocol):
    """A farm of emulated phones, such as a PhoneLab. Both methods return when what they did can be seen."""

    phones: EmulatedPhones

    def kill_server(self) -> None:
        """The adb server dies."""

    def kill_broker(self) -> None:
        """The broker dies, and lives again."""


@dataclass(frozen=True)
class Step:
    """`what` happens, to a phone for `lasts_s`. `times` is how often it strikes; None: until it is healed."""

    what: PhoneFault | Blow
    phone: int = 0
    lasts_s: float = 0.0
    value: float | None = None
    times: int | None = None


_STRIKES_ONCE = frozenset({PhoneFault.HANG, PhoneFault.CRASH, PhoneFault.FLIPPED, PhoneFault.LINK_GARBAGE})


def make_plan(
    seed: int, *, phones: int, faults: Sequence[PhoneFault], blows: Sequence[Blow], rounds: int
) -> list[Step]:
    """Every fault `rounds` times and every blow once, in random order, on random phones."""
    rng = random.Random(seed)
    what: list[PhoneFault | Blow] = [*faults] * rounds + [*blows]
    rng.shuffle(what)
    steps = []
    for event in what:
        if isinstance(event, Blow):
            steps.append(Step(event))
            continue
        value = {
            PhoneFault.REBOOT: rng.uniform(0.3, 2.0),
            PhoneFault.THROTTLED: rng.choice((0.95, 0.9, 0.8, 0.6)),
        }.get(event)
        lasts_s = rng.uniform(0.3, 4.0) + (4.0 if event is PhoneFault.THROTTLED else 0.0)
        times = 1 if event in _STRIKES_ONCE else None
        steps.append(Step(event, rng.randrange(phones), lasts_s, value, times))
    return steps


class Chaos(threading.Thread):
    """Carries out a plan, spread evenly over `total` answers; a step waits at most `patience_s` for its turn.

    `answered` counts the answers so far. Everything is healed in the end. `error` is what it failed with; `tale` what
    it did, for people.
    """

    def __init__(
        self, lab: Victim, plan: Sequence[Step], *, total: int, answered: Callable[[], int], patience_s: float = 4.0
    ) -> None:
        super().__init__(name="chaos")
        self._lab, self._plan, self._total, self._answered = lab, plan, total, answered
        self._patience_s = patience_s
        self._ends: list[tuple[float, Step]] = []
        self.error: Exception | None = None
        self.tale: list[str] = []

    def run(self) -> None:
        began_s = time.monotonic()
        try:
            for number, step in enumerate(self._plan):
                self._wait_for(number * self._total // len(self._plan))
                who = "" if isinstance(step.what, Blow) else f"phone {step.phone}: "
                self.tale.append(f"{time.monotonic() - began_s:6.2f} s, {self._answered()} answers, {who}{step.what}")
                self._strike(step)
            while self._ends:
                self._heal()
        except Exception as error:
            self.error = error

    def _wait_for(self, answers: int) -> None:
        until_s = time.monotonic() + self._patience_s
        while time.monotonic() < until_s and self._answered() < answers:
            self._heal()

    def _strike(self, step: Step) -> None:
        if step.what is Blow.KILL_SERVER:
            self._lab.kill_server()
        elif step.what is Blow.KILL_BROKER:
            self._lab.kill_broker()
        else:
            self._lab.phones[step.phone].inject(step.what, value=step.value, times=step.times)
            self._ends.append((time.monotonic() + step.lasts_s, step))

    def _heal(self) -> None:
        now = time.monotonic()
        for at_s, step in self._ends:
            if at_s <= now and isinstance(step.what, PhoneFault):
                self._lab.phones[step.phone].heal(step.what)
        self._ends = [end for end in self._ends if end[0] > now]
        time.sleep(0.02)
