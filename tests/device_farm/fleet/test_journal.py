"""The broker's journal: what was acknowledged is there, after kill -9 too, and nothing that was not written is."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_farm.errors import JournalError
from device_farm.fleet.entries import Entry, Kind
from device_farm.fleet.journal import JOURNAL_NAME, Journal, sweep
from device_farm.fleet.words import Blame, Done, Failed, Failure, Fault
from device_farm.measurement.types import DeviceFacts, Measurement

ROOT = Path(__file__).parents[3]


def measurement(key: str, *, serial: str = "p1", latency_ms: float = 1.5) -> Measurement:
    return Measurement(
        artifact_key=key,
        device=DeviceFacts(serial, "m", "x86_64-avx2", details={"processor": 'it\'s "one"\n'}),
        protocol_key="p",
        latency_ms=latency_ms,
        ci_low_ms=latency_ms / 2,
        ci_high_ms=latency_ms * 2,
        samples=3,
        percentiles_ms={"p50": latency_ms},
        max_relative_error=0.0,
        steps_ms=(("conv", 1.0),),
        conditions={"after": {"load_1min": 0.5}},
    )


def crash(serial: str, fence: int = 7) -> Failure:
    return Failure(serial, fence, 12.5, Fault(Blame.ARTIFACT, "RunnerFailed", "signal 11"))


def write(path: Path, *batches: list[Entry], farm_id: str = "farm") -> None:
    journal = Journal.open(path, farm_id=farm_id)
    for batch in batches:
        journal.append(batch)
    journal.close()


@contextlib.contextmanager
def opened(path: Path, farm_id: str = "farm") -> Any:
    journal = Journal.open(path, farm_id=farm_id)
    try:
        yield journal
    finally:
        journal.close()


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "not yet there" / "journal.sqlite"
    done = Done(measurement("a"))
    failed = Failed("Poisoned", "failed on 2 different devices", (crash("p1"), crash("p2")), final=True)
    write(path, [Entry.answer("job a", done), Entry.answer("job b", failed)])
    with opened(path) as journal:
        assert journal.answer("job a") == done
        assert journal.answer("job b") == failed
        assert journal.answer("job c") is None


def test_a_job_has_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first, second = (Done(measurement("a", latency_ms=ms)) for ms in (1.0, 2.0))
    write(path, [Entry.answer("job", first), Entry.answer("job", second)], [Entry.answer("job", second)])
    with opened(path) as journal:
        assert journal.answer("job") == first


def test_a_new_life_knows_what_the_old_one_did(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    off, well = ({"model": "m", "quarantine_left_s": left_s} for left_s in (None, 0.0))
    quarantined = Entry(Kind.QUARANTINED, serial="p1", data={"reason": "off by 12 %", "health": off})
    released = Entry(Kind.RELEASED, serial="p2", data={"reason": "", "health": well})
    write(
        path,
        [
            Entry.failure(Kind.ACCUSED, "a", crash("p1")),
            Entry.failure(Kind.ACCUSED, "a", crash("p2")),
            Entry.failure(Kind.ACCUSED, "b", crash("p1")),
        ],
        [quarantined, replace(quarantined, serial="p2"), released],
        [Entry(Kind.ATTACHED, serial="p3", data={"kind": None}), Entry(Kind.DETACHED, serial="p4")],
        [Entry(Kind.BASELINE, serial="p1", data={"latency_ms": ms}) for ms in (3.0, 4.0)],
    )
    with opened(path) as journal:
        restored = journal.restored
        assert restored.evidence == {"a": [crash("p1"), crash("p2")], "b": [crash("p1")]}
        assert restored.health == {"p1": (quarantined.at_s, off), "p2": (released.at_s, well)}
        assert restored.attached == {"p3": {"kind": None}, "p4": None}
        assert restored.baselines == {"p1": {"latency_ms": 4.0}}
    with opened(path, "another farm") as journal:
        assert journal.restored.attached == {}
        assert journal.restored.health and journal.restored.evidence and journal.restored.baselines


def test_no_fence_is_given_twice(tmp_path: Path) -> None:
    firsts = []
    for _ in range(4):
        with opened(tmp_path / "journal") as journal:
            firsts.append(journal.restored.first_fence)
    assert firsts == sorted(set(firsts)) and min(b - a for a, b in itertools.pairwise(firsts)) >= 10**9


def test_history_is_of_one_device_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    strange = "it's; DROP TABLE log\n--\0 \udcff \U0001f4f1"
    write(path, [Entry(Kind.STRUCK, serial=s, data={"n": n}) for n in range(5) for s in ("p1", strange)])
    write(path, [Entry.answer("job", Done(measurement("a", serial=strange)))])
    with opened(path) as journal:
        assert [e.data["n"] for e in journal.history("p1")] == [0, 1, 2, 3, 4]
        assert [e.kind for e in journal.history(strange, limit=2)] == [Kind.STRUCK, Kind.MEASURED]
        assert journal.history("") == journal.history("nobody") == []


def test_conditions_of_any_kind_are_kept(tmp_path: Path) -> None:
    conditions: dict[Any, Any] = {"zone": Path("/sys"), 3: math.inf}
    odd = replace(measurement("a"), conditions=conditions)
    write(tmp_path / "journal", [Entry.answer("job", Done(odd))])
    with opened(tmp_path / "journal") as journal:
        assert journal.answer("job").result.conditions == {"zone": "/sys", "3": math.inf}


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "journal"), pytest.raises(JournalError, match=r"another farm writes .*journal: connect to"):
        Journal.open(tmp_path / "journal")
    with opened(tmp_path / "journal"):
        pass


def test_only_old_journals_of_nobody_are_swept(tmp_path: Path) -> None:
    for name in ("old", "held", "new"):
        write(tmp_path / name / JOURNAL_NAME)
    with opened(tmp_path / "held" / JOURNAL_NAME):
        for path in [*tmp_path.glob("old/*"), *tmp_path.glob("held/*"), tmp_path / "old", tmp_path / "held"]:
            os.utime(path, (0, 0))
        sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"held", "new"}
    sweep(tmp_path / "not there")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda path: path.write_bytes(b""), r"is damaged \(this is no journal of a device farm\).*Restore it"),
        (lambda path: path.write_text("measurements: none\n" * 500), r"is damaged \(file is not a database\)"),
        (lambda path: path.with_name("journal-wal").touch() or path.unlink(), r"is gone, but journal-wal is still"),
        (lambda path: sql(path, "PRAGMA user_version=9"), "has schema 9, this version reads 1: use the version that"),
        (lambda path: sql(path, "DELETE FROM log WHERE id = 2"), r"row 2 is missing or not what was written"),
        (lambda path: sql(path, "UPDATE log SET data = replace(data, '1.5', '1.4') WHERE id = 3"), r"row 3 is missing"),
        (lambda path: sql(path, "UPDATE log SET key = 'other job' WHERE id = 3"), r"row 3 is missing or not"),
        (lambda path: sql(path, "DROP TABLE log"), "no such table: log"),
    ],
)
def test_a_journal_that_is_not_as_it_was_written_is_refused(
    tmp_path: Path, spoil: Callable[[Path], Any], complaint: str
) -> None:
    path = tmp_path / "journal"
    write(path, [Entry.answer(f"job {n}", Done(measurement("a"))) for n in range(3)])
    spoil(path)
    with pytest.raises(JournalError, match=complaint):
        Journal.open(path)
    with pytest.raises(JournalError, match=complaint):  # and the lock was let go
        Journal.open(path)


def sql(path: Path, statement: str) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_journal_cut_anywhere_is_refused_or_tells_a_beginning_of_the_truth(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    journal = Journal.open(whole)
    journal.append([Entry.answer(f"job {n}", Done(measurement("a", latency_ms=1.0 + n))) for n in range(40)])
    journal._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # these 40 are in the file
    for n in range(40, 60):
        journal.append([Entry.answer(f"job {n}", Done(measurement("a", latency_ms=1.0 + n)))])  # and these beside it
    copies = {name: (tmp_path / f"whole{name}").read_bytes() for name in ("", "-wal")}
    journal.close()

    complaints = set()

    def answers(cut: str, size: int) -> list[float] | None:
        folder = tmp_path / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in copies.items():
            (folder / f"j{name}").write_bytes(content[:size] if name == cut else content)
        try:
            with opened(folder / "j") as found:
                known = [found.answer(f"job {n}") for n in range(60)]
        except JournalError as error:
            complaints.add("damaged" in str(error) and "Restore it" in str(error))
            return None
        return [outcome.result.latency_ms for outcome in known if outcome is not None]

    truth = [1.0 + n for n in range(60)]
    assert answers("", len(copies[""])) == answers("-wal", len(copies["-wal"])) == truth
    size = len(copies[""])
    for at in {*range(0, size, 1537), *(n * 4096 for n in range(size // 4096)), 1, 99, size - 1}:
        assert answers("", at) in (None, truth)
    lengths = set()
    for at in range(0, len(copies["-wal"]), 4999):
        found = answers("-wal", at)
        assert found is not None and found == truth[: len(found)] and len(found) >= 40
        lengths.add(len(found))
    assert len(lengths) > 10 and complaints == {True}


def test_what_append_returned_from_survives_kill_9(tmp_path: Path) -> None:
    program = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from test_journal import Done, Entry, Journal, measurement
journal = Journal.open(Path({str(tmp_path / "journal")!r}))
for n in range(10**6):
    journal.append([Entry.answer(f"job {{n}}", Done(measurement("a", latency_ms=1.0 + n)))])
    print(n, flush=True)
"""
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(20)]
            time.sleep(0.03)
            os.kill(child.pid, signal.SIGKILL)
            lines += child.stdout.readlines()
        acknowledged = [int(line) for line in lines if line.endswith(b"\n")]
        with opened(tmp_path / "journal") as journal:
            assert all(journal.answer(f"job {n}").result.latency_ms == 1.0 + n for n in acknowledged)
