"""Checks of policies' settings, which users write into a configuration."""

from __future__ import annotations

import math


def whole(name: str, value: object, *, least: int) -> int:
    """The value. Raises ValueError unless it is a whole number >= `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number >= {least}, got {value!r}")
    return value


def fraction(name: str, value: object) -> float:
    """The value. Raises ValueError unless it is a number in [0, 1]."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{name} is in [0, 1], got {value!r}")
    return float(value)


def yes_or_no(name: str, value: object) -> bool:
    """The value. Raises ValueError unless it is a boolean."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is true or false, got {value!r}")
    return value
