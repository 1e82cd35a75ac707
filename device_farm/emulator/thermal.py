"""How warm a phone is, and what that takes off its clock. Time is passed in; nothing here looks at a clock."""

from __future__ import annotations

import bisect
import copy
import math

from device_farm.emulator.phone_model import Thermal

_SKIN_SHARE = 0.45  # of the processor's warmth over the air that reaches the skin
_BATTERY_SHARE = 0.3


class ThermalState:
    """One mass: running heats it towards a limit, the air cools it, both exponentially."""

    def __init__(self, constants: Thermal) -> None:
        self._constants = constants
        self._warmth_c = 4.0  # over the air: an idle phone
        self._at_s = 0.0

    def copy(self) -> ThermalState:
        """One that goes its own way."""
        return copy.copy(self)

    def advance(self, now_s: float, *, load: float) -> None:
        """To `now_s`, with so many busy big cores since the last call. Time never goes back."""
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        target_c = 4.0 + self._constants.heat_c * load
        self._warmth_c = target_c + (self._warmth_c - target_c) * math.exp(-elapsed_s / self._constants.tau_s)

    @property
    def soc_c(self) -> float:
        return self._constants.ambient_c + self._warmth_c

    @property
    def skin_c(self) -> float:
        return self._constants.ambient_c + _SKIN_SHARE * self._warmth_c

    @property
    def battery_c(self) -> float:
        return self._constants.ambient_c + _BATTERY_SHARE * self._warmth_c

    @property
    def status(self) -> int:
        """Android's: 0 none, 1 light, 2 moderate, 3 severe, 4 critical."""
        return bisect.bisect_right(self._constants.throttle_c, self.soc_c)

    @property
    def clock_factor(self) -> float:
        """Of the highest clock."""
        return self._constants.steps[self.status]

    def heat_to(self, soc_c: float) -> None:
        """For tests: a phone that lies in the sun."""
        self._warmth_c = soc_c - self._constants.ambient_c
