"""The broker's journal: what was measured, what failed for good and why, what happened to devices.

One append-only table in one SQLite file, one writer. What `append` was given is on disk (WAL, synchronous=FULL) when it
returns, so whatever the broker acknowledged after it survives kill -9. Every row carries a seal, a hash over the seal
of the row before it and its own content: a row that is missing, changed or out of place is found when the journal is
opened, and then nothing of it is used.

An answer (a measurement, or a final failure) is kept under its job's key, so the table is a content-addressed cache:
artifact x device model x protocol. There is at most one answer for a key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from device_farm.errors import JournalError
from device_farm.fleet.entries import RESTORED, Entry, Kind, Restored, outcome_of
from device_farm.fleet.words import Outcome
from device_farm.measurement.types import Measurement

SCHEMA = 1
JOURNAL_NAME = "journal.sqlite"

_TABLES = """
CREATE TABLE log (
    id INTEGER PRIMARY KEY,  -- 1, 2, 3, ...: no gaps
    at REAL NOT NULL,        -- seconds since the epoch
    kind TEXT NOT NULL,      -- see Kind
    key TEXT NOT NULL,       -- of a job, an artifact or a request; '' where there is none
    serial TEXT NOT NULL,    -- of the device; '' where there is none
    data TEXT NOT NULL,      -- JSON
    seal TEXT NOT NULL       -- SHA-256 of the seal before and of this row
) STRICT;
CREATE UNIQUE INDEX answers ON log (key) WHERE kind IN ('measured', 'failed');
CREATE INDEX by_serial ON log (serial, id) WHERE serial != '';
"""
_APPLICATION_ID = 0x6E706173  # "npas"; SQLite keeps it, and the schema's number, in the file's header
_COLUMNS = "id, at, kind, key, serial, data, seal"
_FIRST_SEAL = "0" * 64


class Journal:
    """An open journal. Every method raises JournalError if the file is damaged or the disk refuses.

    `append` may be called in another thread than the other methods.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection, lock: int) -> None:
        self.path = path
        self.restored = Restored()
        self._writer = writer
        self._reader: sqlite3.Connection = _connect(path)
        self._lock = lock
        self._seal = _FIRST_SEAL
        self._rows = 0

    @classmethod
    def open(cls, path: Path, *, farm_id: str = "") -> Journal:
        """The journal at `path`, begun if there is none, with its rows verified and a new life's fences taken.

        `farm_id` is the same for all lives of one farm's broker, and for no other farm.

        Raises JournalError: it is damaged, of a later version, or another farm writes it.
        """
        with _guard(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _locked(path)
            try:
                if not path.exists():
                    _create(path)
                journal = cls(path, _checked(path), lock)
            except BaseException:
                os.close(lock)
                raise
            try:
                journal._restore()
                journal.restored.begin(farm_id)
                data = {"first_fence": journal.restored.first_fence, "pid": os.getpid()}
                journal.append([Entry(Kind.LIFE, farm_id, data=data)])
            except BaseException:
                journal.close()
                raise
            return journal

    def append(self, entries: Sequence[Entry]) -> None:
        """Puts entries on disk, all or none. An answer for a key that has one is left out."""
        with _guard(self.path):
            rows, seal = self._rows, self._seal
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                for entry in entries:
                    data = json.dumps(dict(entry.data), default=str, skipkeys=True)  # conditions may hold anything
                    row = (rows + 1, entry.at_s, str(entry.kind), _text(entry.key), _text(entry.serial), data)
                    sealed = _seal(seal, row)
                    done = self._writer.execute(
                        "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key)"
                        " WHERE kind IN ('measured', 'failed') DO NOTHING",
                        (*row, sealed),
                    )
                    if done.rowcount:
                        rows, seal = rows + 1, sealed
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk has ended it already
                    self._writer.execute("ROLLBACK")
                raise
            self._rows, self._seal = rows, seal

    def answer(self, key: str) -> Outcome[Measurement] | None:
        """What is known of a job. None: it has to be done."""
        with _guard(self.path):
            row = self._reader.execute(
                "SELECT kind, data FROM log WHERE key = ? AND kind IN ('measured', 'failed')", (_text(key),)
            ).fetchone()
        if row is None:
            return None
        try:
            return outcome_of(row[0], json.loads(row[1]))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(self.path, f"the answer for {key} is not understood: {error}") from error

    def count_answers(self) -> int:
        """Measurements and final failures."""
        with _guard(self.path):
            row = self._reader.execute("SELECT count(*) FROM log WHERE kind IN ('measured', 'failed')").fetchone()
        return int(row[0])

    def history(self, serial: str, *, limit: int = 100) -> list[Entry]:
        """The last `limit` entries of a device, the oldest first."""
        with _guard(self.path):
            rows = self._reader.execute(
                f"SELECT {_COLUMNS} FROM log WHERE serial = ? AND serial != '' ORDER BY id DESC LIMIT ?",
                (_text(serial), limit),
            ).fetchall()
        return [_entry(row) for row in reversed(rows)]

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    def _restore(self) -> None:
        for row in self._reader.execute(f"SELECT {_COLUMNS} FROM log ORDER BY id"):
            if row[0] != self._rows + 1 or row[6] != _seal(self._seal, row[:6]):
                raise _damaged(self.path, f"row {self._rows + 1} is missing or not what was written")
            self._rows, self._seal = row[0], row[6]
            if row[2] not in RESTORED:
                continue
            try:
                self.restored.add(_entry(row))
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(self.path, f"row {row[0]} is not understood: {error!r}") from error


def sweep(parent: Path, *, min_age_s: float = 24 * 3600.0) -> None:
    """Deletes journals in folders of `parent` that nobody has written for that long and nobody holds. Never raises."""
    with suppress(OSError):
        for folder in parent.iterdir():
            with suppress(OSError, JournalError):
                newest = max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
                if newest > time.time() - min_age_s:
                    continue
                lock = _locked(folder / JOURNAL_NAME)
                try:
                    shutil.rmtree(folder)
                finally:
                    os.close(lock)


def _seal(before: str, row: Sequence[Any]) -> str:
    number, at, *texts = row
    lengths = " ".join(str(len(text)) for text in texts)
    return hashlib.sha256(f"{before} {number} {at!r} {lengths} {''.join(texts)}".encode()).hexdigest()


def _text(name: str) -> str:
    """What SQLite can hold of a name: a serial may be any bytes that a phone says."""
    return name.encode(errors="backslashreplace").decode()


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(Kind(row[2]), row[3], row[4], json.loads(row[5]), row[1])


# The file


def _create(path: Path) -> None:
    """An empty journal, there whole or not at all."""
    for leftover in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        if leftover.exists():
            raise JournalError(
                f"{path} is gone, but {leftover.name} is still there: bring back the journal that it belongs to, or"
                f" delete it to begin a new one"
            )
    scratch = path.with_name(path.name + ".new")
    for part in ("", "-wal", "-shm", "-journal"):
        Path(f"{scratch}{part}").unlink(missing_ok=True)
    connection = sqlite3.connect(scratch, isolation_level=None)
    connection.executescript(
        f"PRAGMA application_id={_APPLICATION_ID}; PRAGMA user_version={SCHEMA}; BEGIN; {_TABLES} COMMIT;"
    )
    connection.close()
    scratch.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name, too, survives a power cut
    finally:
        os.close(folder)


def _checked(path: Path) -> sqlite3.Connection:
    """A connection for writing to a journal that is one, and whole."""
    connection = _connect(path)
    try:
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != _APPLICATION_ID:
            raise _damaged(path, "this is no journal of a device farm")
        if schema != SCHEMA:
            raise JournalError(
                f"{path} has schema {schema}, this version reads {SCHEMA}: use the version that wrote it, or name"
                f" another file"
            )
        verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
        if verdict != "ok":
            raise _damaged(path, verdict)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"file:{path.resolve().as_posix().replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)


def _locked(path: Path) -> int:
    """The right to write, until it is closed or the process ends. Not the journal's own file: SQLite locks that."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise JournalError(
            f"another farm writes {path}: connect to that one, stop it, or give this one another journal"
        ) from None
    return descriptor


# The journal itself is well in these cases.
_WAYS_OUT = {
    "SQLITE_FULL": "make room on that disk and ask again",
    "SQLITE_BUSY": "something else holds it; end that and ask again",
    "SQLITE_READONLY": "allow writing to it and ask again",
    "SQLITE_IOERR": "look at that disk and ask again",
    "SQLITE_CANTOPEN": "name a file that can be opened and written",
}


@contextmanager
def _guard(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        way_out = next((way for known, way in _WAYS_OUT.items() if name.startswith(known)), None)
        if way_out is None:
            raise _damaged(path, str(error)) from error
        raise JournalError(f"{path}: {error}; {way_out}") from error
    except OSError as error:
        raise JournalError(
            f"{path}: {error.strerror or error}; name a file on a local disk that is writable"
        ) from error


def _damaged(path: Path, what: str) -> JournalError:
    return JournalError(
        f"{path} is damaged ({what}); nothing of it was used. Restore it with its -wal from a copy, or move them away:"
        f" a new journal begins empty, and everything is measured again"
    )
