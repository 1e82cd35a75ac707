"""Arguments to shell text, and what may be part of one at all."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-]+")
_FOLDER = re.compile(r"/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


def quote(word: str) -> str:
    """One word of a POSIX shell. Raises ValueError for NUL, which no program can be given.

    >>> quote("it's"), quote("plain")
    ("'it'\\\\''s'", 'plain')
    """
    if "\0" in word:
        raise ValueError(f"an argument of a program cannot contain NUL, got {word[:50]!r}")
    if _PLAIN.fullmatch(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def quote_all(words: Sequence[str]) -> str:
    """The words, to be read by a shell as exactly these. Raises ValueError."""
    return " ".join(map(quote, words))


def check_folder(path: str) -> str:
    """The path itself if it is absolute, plain and below the root. Raises ValueError."""
    if _FOLDER.fullmatch(path) is None or any(part in (".", "..") for part in path.split("/")):
        raise ValueError(f"a folder on a phone is an absolute path of letters, digits, '_', '.' and '-', got {path!r}")
    return path


def check_serial(serial: str) -> str:
    """The serial itself if adb can be asked for it; it may hold anything that adb can list. Raises ValueError."""
    try:
        length = len(serial.encode())
    except UnicodeEncodeError:
        raise ValueError(f"a serial must be text in UTF-8, got {serial!r}") from None
    if not 1 <= length <= 255 or "\0" in serial:
        raise ValueError(f"a serial has 1 to 255 bytes and no NUL, got {serial[:300]!r}")
    return serial
