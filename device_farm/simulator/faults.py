"""What befalls a phone, how often and for how long."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from enum import StrEnum


class PhoneFault(StrEnum):
    VANISH = "vanish"  # the link closes; back when it is over
    REBOOT = "reboot"  # the same, and the phone has cooled down
    MUTE = "mute"  # the link stays and answers nothing
    UNAUTHORIZED = "unauthorized"  # the link closes and is refused
    REFUSE = "refuse"  # every push is refused: disk full
    HANG = "hang"  # one program never ends
    LATE = "late"  # one program answers long after its lease, and wrongly
    FLIP = "flip"  # answers are wrong
    NOISY = "noisy"  # samples vary too much
    THROTTLE = "throttle"  # the clock is capped, whatever the temperature
    SLOW = "slow"  # the link takes ten times as long


@dataclass(frozen=True)
class FaultRates:
    """Of each fault, how often a phone meets it in an hour; each lasts `spell_s` on average, exponentially spread."""

    vanish: float = 0.0
    reboot: float = 0.0
    mute: float = 0.0
    unauthorized: float = 0.0
    refuse: float = 0.0
    hang: float = 0.0
    late: float = 0.0
    flip: float = 0.0
    noisy: float = 0.0
    throttle: float = 0.0
    slow: float = 0.0
    spell_s: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < math.inf:
                raise ValueError(f"{field.name} must be a finite number, 0 or more, got {getattr(self, field.name)}")
        if self.spell_s == 0:
            raise ValueError("spell_s must be above 0 seconds, got 0")

    @classmethod
    def all_at(cls, per_hour: float, *, spell_s: float = 60.0) -> FaultRates:
        """Every fault as often."""
        return cls(**{fault.value: per_hour for fault in PhoneFault}, spell_s=spell_s)

    def of(self, fault: PhoneFault) -> float:
        rate: float = getattr(self, fault.value)
        return rate

    @property
    def per_hour(self) -> float:
        return sum(map(self.of, PhoneFault))

    def draw(self, rng: random.Random) -> tuple[float, PhoneFault, float]:
        """Seconds until the next fault, which, and for how many seconds. Only where some rate is above 0."""
        after_s = rng.expovariate(self.per_hour / 3600.0)
        (fault,) = rng.choices(list(PhoneFault), weights=list(map(self.of, PhoneFault)))
        return after_s, fault, rng.expovariate(1.0 / self.spell_s)
