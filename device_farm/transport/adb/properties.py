"""What Android's getprop and Linux's /proc/cpuinfo say, as data. Whatever a phone says is only text until it fits."""

from __future__ import annotations

import re

MAX_TEXT = 120
_PROPERTY = re.compile(r"^\[([^\]\n]+)\]: \[(.*?)\]$", re.MULTILINE | re.DOTALL)


def parse_properties(text: str) -> dict[str, str]:
    """The output of getprop. A value may have several lines. The first of a name counts."""
    found: dict[str, str] = {}
    for match in _PROPERTY.finditer(text.replace("\r\n", "\n")):
        found.setdefault(match[1], match[2])
    return found


def parse_cpu_features(text: str) -> frozenset[str]:
    """Of /proc/cpuinfo: what every core has. Cores of one chip may differ, and a program may run on any."""
    features: frozenset[str] | None = None
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip().lower() in ("features", "flags"):
            own = frozenset(value.split())
            features = own if features is None else features & own
    return features or frozenset()


def clean(text: str) -> str:
    """A phone's word for people and tables: one line, printable, not endless."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT])
    return " ".join(shown.split())[:MAX_TEXT]
