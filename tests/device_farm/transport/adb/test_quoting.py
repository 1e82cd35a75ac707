from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_farm.transport.adb.quoting import check_folder, check_serial, quote, quote_all

_WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), max_size=6)


@settings(max_examples=60)
@given(_WORDS)
@example(["", "it's", "''", "\\'", "$(id)`id`", "a\nb", "*", "~", "!", "#", "-n", "a;b|c&d>e<f", '"', "ä", "\r\t\x01"])
def test_a_shell_reads_exactly_the_words(words: list[str]) -> None:
    script = f'for word in {quote_all(words)}; do printf "%s\\0" "$word"; done'
    if not words:
        script = ":"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, timeout=10)
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words)
    assert done.stderr == b""


def test_nul_cannot_be_an_argument() -> None:
    with pytest.raises(ValueError, match="cannot contain NUL"):
        quote("a\0b")


@pytest.mark.parametrize("path", ["", "/", "a/b", "/a b", "/a/../b", "/a/.", "/a;rm", "/$HOME", "/a//b", "/a\n", "/ä"])
def test_folders_that_are_not_plain_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        check_folder(path)


@pytest.mark.parametrize(
    "serial", ["R5CT", "10.0.0.2:5555", "a b", "a'\"$(id)\n;|", "adb-X (2)._adb-tls-connect._tcp", "ä"]
)
def test_a_serial_may_hold_anything_that_adb_lists(serial: str) -> None:
    assert check_serial(serial) == serial


@pytest.mark.parametrize("serial", ["", "a\0b", "x" * 256, "\udcff"])
def test_impossible_serials_are_refused(serial: str) -> None:
    with pytest.raises(ValueError, match="serial"):
        check_serial(serial)
