"""What Android's getprop and Linux's /proc/cpuinfo say, as data. Whatever a phone says is only text until it fits."""

from __future__ import annotations

import re

MAX_TEXT = 120
_BEGIN = re.compile(r"\[([^\]]+)\]: \[(.*)")


def parse_properties(text: str) -> dict[str, str]:
    """The output of getprop. A value may have several lines. The first of a name counts."""
    found: dict[str, str] = {}
    name: str | None = None
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if name is None:
            match = _BEGIN.fullmatch(line)
            if match is None:
                continue
            name, line = match.groups()
        lines.append(line)
        if line.endswith("]"):
            found.setdefault(name, "\n".join(lines)[:-1])
            name, lines = None, []
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
