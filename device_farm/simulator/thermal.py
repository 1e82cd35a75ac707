"""Heat: a phone that works gets warm, and a warm phone gets slow."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ThermalModel:
    """One lump of heat. At work it tends to ambient + `rise_c`, idle to ambient, both with the time constant `tau_s`.

    The clock is at its full rate up to `throttle_c`, and falls from there in a line to `slowest` at `span_c` more.
    """

    rise_c: float = 12.0
    tau_s: float = 180.0
    throttle_c: float = 41.0
    span_c: float = 10.0
    slowest: float = 0.5

    def after(self, start_c: float, seconds: float, *, ambient_c: float, works: bool) -> float:
        """The temperature after so many seconds of work or of rest."""
        end_c = ambient_c + (self.rise_c if works else 0.0)
        return end_c + (start_c - end_c) * math.exp(-seconds / self.tau_s)

    def clock(self, temperature_c: float) -> float:
        """The clock's rate, 1 when cool."""
        excess = min(max(0.0, (temperature_c - self.throttle_c) / self.span_c), 1.0)
        return 1.0 - excess * (1.0 - self.slowest)

    def seconds_to(self, wanted_c: float, *, start_c: float, ambient_c: float) -> float:
        """How long it must rest to be as cool as that; infinite if the room is too warm."""
        if start_c <= wanted_c:
            return 0.0
        if wanted_c <= ambient_c:
            return math.inf
        return self.tau_s * math.log((start_c - ambient_c) / (wanted_c - ambient_c))
