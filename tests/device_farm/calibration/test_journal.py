from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from device_farm.calibration.file import Identity
from device_farm.calibration.journal import Record, open_journal
from device_farm.errors import CalibrationError

IDENTITY = Identity("compiler", "target", "local", "protocol", {"layers": {"a": ["x", "y"]}})


def record(name: str, *, latency_ms: float | None = 1.5, quiet: bool = True, attempt: int = 0) -> Record:
    return Record(label=(name,), attempt=attempt, latency_ms=latency_ms, quiet=quiet, steps_ms=(("conv", 1.0),))


def labels(path: Path, identity: Identity = IDENTITY) -> list[str]:
    with open_journal(path, identity) as journal:
        return [label[0] for label in journal.records]


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.journal"
    with open_journal(path, IDENTITY) as journal:
        journal.write(record("a"))
        journal.write(record("b", latency_ms=None, quiet=False))
    with open_journal(path, IDENTITY) as journal:
        assert journal.records == {("a",): record("a"), ("b",): record("b", latency_ms=None, quiet=False)}


@pytest.mark.parametrize(
    "tail",
    [b'{"label": ["c"], "att', b"garbage\n", b"\x00" * 50, b'{"label": ["c"], "attempt": 0, "latency_ms": -1}\n'],
)
def test_a_torn_end_is_cut_off_and_the_rest_stays(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "c.journal"
    with open_journal(path, IDENTITY) as journal:
        journal.write(record("a"))
        journal.write(record("b"))
    with path.open("ab") as file:
        file.write(tail)
    with open_journal(path, IDENTITY) as journal:
        assert list(journal.records) == [("a",), ("b",)]
        journal.write(record("c"))
    assert labels(path) == ["a", "b", "c"]


@pytest.mark.parametrize("content", [b"", b"not json\n", b"[]\n", b'{"schema": 1}\n{}\n'])
def test_a_journal_that_is_none_begins_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.journal"
    path.write_bytes(content)
    assert labels(path) == []
    with open_journal(path, IDENTITY) as journal:
        journal.write(record("a"))
    assert labels(path) == ["a"]


def test_what_another_compiler_took_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "c.journal"
    with open_journal(path, IDENTITY) as journal:
        journal.write(record("a"))
    assert labels(path, replace(IDENTITY, compiler="newer")) == []


def test_the_better_measurement_counts(tmp_path: Path) -> None:
    with open_journal(tmp_path / "c.journal", IDENTITY) as journal:
        journal.write(record("a", latency_ms=None, quiet=False))
        journal.write(record("a", latency_ms=1.9, quiet=False, attempt=1))
        journal.write(record("a", latency_ms=1.5, quiet=True, attempt=2))
        journal.write(record("a", latency_ms=1.8, quiet=False, attempt=3))
        kept = journal.records[("a",)]
        assert (kept.latency_ms, kept.quiet, kept.attempt) == (1.5, True, 3)


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "c.journal"
    with open_journal(path, IDENTITY) as journal:
        journal.write(record("a"))
        with pytest.raises(CalibrationError, match="another calibration"), open_journal(path, IDENTITY):
            pass
    assert labels(path) == ["a"]


WRITER = """
import sys
from pathlib import Path
from device_farm.calibration.file import Identity
from device_farm.calibration.journal import Record, open_journal
with open_journal(Path(sys.argv[1]), Identity("compiler", "target", "local", "protocol", {"layers": {}})) as journal:
    for number in range(100_000):
        journal.write(Record(label=(str(number),), attempt=0, latency_ms=1.0, quiet=True))
        print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "c.journal"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(30)][-1]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    found = labels(path, Identity("compiler", "target", "local", "protocol", {"layers": {}}))
    assert found[: acknowledged + 1] == [str(number) for number in range(acknowledged + 1)]
