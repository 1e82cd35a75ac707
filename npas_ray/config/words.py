"""How things are named in messages: locations, values, durations, and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

Loc = tuple[str | int, ...]  # ("space", "operators", 2)

_SHOWN_CHARACTERS = 60


def dotted(loc: Loc) -> str:
    """space.operators[2]"""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + printable(part)
    return text


def printable(text: str) -> str:
    """The text on one line, with whatever a terminal might obey escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def shown(value: Any) -> str:
    """A value as the configuration file would write it, cut to a readable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        inner = ", ".join(shown(item) for item in value[:10]) + (", ..." if len(value) > 10 else "")
        return _cut(f"[{inner}]")
    if isinstance(value, str):
        return _cut(f"'{printable(value)}'")
    if isinstance(value, int) and abs(value) >= 10**_SHOWN_CHARACTERS:
        return "a number of more than 60 digits"
    return _cut(printable(repr(value)))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that somebody who typed `word` most likely meant, if one is near."""
    by_folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(word[:200].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """ "; did you mean 'x'?" or nothing."""
    found = nearest(word, choices)
    return f"; did you mean '{found}'?" if found is not None else ""


def duration(seconds: float) -> str:
    """1 h 02 min, 3 min 20 s, 12 s"""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"
