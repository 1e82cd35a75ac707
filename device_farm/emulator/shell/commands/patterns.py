"""Regular expressions of `grep` and `pkill` that cannot keep the host busy."""

from __future__ import annotations

import re

_SEARCHED_CHARACTERS = 4096
_MOST_REPETITIONS = 3


class Pattern:
    """Raises ValueError for groups and many repetitions: what may take for ever to search for."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        plain = re.sub(r"\\.", "", text)
        if "(" in plain or sum(plain.count(c) for c in "*+?{") > _MOST_REPETITIONS:
            raise ValueError(f"bad pattern '{text}': groups and many repetitions are not emulated")
        try:
            self._compiled = re.compile(text, re.IGNORECASE if ignore_case else 0)
        except re.error as error:
            raise ValueError(f"bad pattern '{text}': {error}") from error

    def matches(self, text: str) -> bool:
        """Whether it is found in the beginning of a text."""
        return self._compiled.search(text[:_SEARCHED_CHARACTERS]) is not None
