"""The run's journal: what was proposed, measured, trained and concluded. The only truth for resume.

One SQLite file, one writer. Every method that writes has committed to disk (WAL, synchronous=FULL) when it returns,
so what was acknowledged survives kill -9. Facts are appended to `events` and never changed; `candidates` holds one row
for each architecture key, so that nothing can be concluded twice (what was stopped can be promoted, once).
"""

from __future__ import annotations

import json
import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npas_ray.errors import DamagedJournal, JournalError
from npas_ray.search.policy import Observation, Status
from npas_ray.space.choices import Architecture

FORMAT = 1

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE candidates (
    ordinal INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    architecture TEXT NOT NULL,
    proposed_at REAL NOT NULL,
    status TEXT,           -- NULL while it is under way
    reason TEXT,
    concluded_at REAL,
    conclusion INTEGER UNIQUE  -- 1, 2, 3, ... in the order of the conclusions: the order of replay
) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    kind TEXT NOT NULL,    -- session, proposed, measured, trained, concluded, promoted, note
    key TEXT,              -- of the candidate
    data TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_key ON events (key, kind);
"""


# the journal itself is well in these cases
_WAYS_OUT = {
    "SQLITE_FULL": "make room and resume",
    "SQLITE_BUSY": "something else holds it; end that and resume",
    "SQLITE_READONLY": "allow writing and resume",
}


@dataclass(frozen=True)
class Candidate:
    """Everything that the journal knows of one architecture."""

    ordinal: int  # 1, 2, 3, ... in the order of the proposals
    architecture: Architecture
    status: Status | None  # None while it is under way
    reason: str | None
    proposed_at: float  # seconds since the epoch
    concluded_at: float | None
    conclusion: int | None
    measurements: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # device model -> Measurement as JSON
    evaluations: tuple[dict[str, Any], ...] = ()  # of the trainer: {"accuracy", "seed", "epochs", "wall_s", ...}

    @property
    def key(self) -> str:
        return self.architecture.key

    @property
    def epochs(self) -> int | None:
        """Of its longest training; None if it was never trained, or nothing says for how long."""
        return max((e["epochs"] for e in self.evaluations if "epochs" in e), default=None)

    @property
    def best_trained(self) -> tuple[dict[str, Any], ...]:
        """Its evaluations after the most epochs, one for each seed: those that say how good it is."""
        return tuple(e for e in self.evaluations if e.get("epochs", self.epochs) == self.epochs)

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds of its longest training, a fraction; None if it was never trained."""
        values = [evaluation["accuracy"] for evaluation in self.best_trained]
        return sum(values) / len(values) if values else None

    @property
    def rungs(self) -> dict[int, float]:
        """Accuracy by epochs of training: the first seed's below, the mean over the seeds after the most epochs."""
        first = {e["epochs"]: e["accuracy"] for e in reversed(self.evaluations) if "epochs" in e}
        if self.epochs is not None and self.accuracy is not None:
            first[self.epochs] = self.accuracy
        return dict(sorted(first.items()))

    @property
    def latency_ms(self) -> dict[str, float]:
        return {model: measurement["latency_ms"] for model, measurement in self.measurements.items()}

    def observation(self) -> Observation:
        """What a policy is told of it. Raises ValueError while it is under way."""
        if self.status is None:
            raise ValueError(f"candidate {self.key} is not concluded")
        trained = self.status in (Status.DONE, Status.STOPPED)
        rungs = self.rungs if trained else {}
        return Observation(
            architecture=self.architecture,
            status=self.status,
            accuracy=self.accuracy if trained else None,
            latency_ms=self.latency_ms,
            latency_ci_ms={m: (v["ci_low_ms"], v["ci_high_ms"]) for m, v in self.measurements.items()},
            rungs=rungs if self.status is Status.STOPPED or len(rungs) > 1 else {},
        )


class Journal:
    """A journal file, open for reading or writing. Use `create` or `open`; close it, or use it in a with statement.

    Every method raises JournalError if the file is damaged or the disk refuses.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._closing = weakref.finalize(self, connection.close)  # whoever lets go of a journal has closed it

    @classmethod
    def create(cls, path: Path, *, config: Mapping[str, Any]) -> Journal:
        """A new journal that remembers the search's configuration. It appears whole or not at all."""
        if path.exists():
            raise JournalError(f"{path} exists already")
        scratch = path.with_name(path.name + ".new")
        for leftover in (scratch, Path(f"{scratch}-wal"), Path(f"{scratch}-shm"), Path(f"{scratch}-journal")):
            leftover.unlink(missing_ok=True)
        with cls._guard(path), closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("format", str(FORMAT)), ("config", json.dumps(config)), ("created_at", repr(time.time()))],
            )
        scratch.rename(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Journal:
        """An existing journal, checked for damage. Any number of readers, one writer (the caller sees to that)."""
        if not path.is_file():
            raise JournalError(f"there is no journal at {path}")
        with cls._guard(path):
            mode = "ro" if read_only else "rw"
            uri = f"file:{path.resolve().as_posix().replace('?', '%3f').replace('#', '%23')}?mode={mode}"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
            try:
                return cls._checked(path, connection, read_only=read_only)
            except BaseException:
                connection.close()
                raise

    @classmethod
    def _checked(cls, path: Path, connection: sqlite3.Connection, *, read_only: bool) -> Journal:
        connection.row_factory = sqlite3.Row
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
        if verdict != "ok":
            raise JournalError(f"{path} is damaged ({verdict}); restore it from a copy or start a new run")
        journal = cls(path, connection)
        found = journal.meta("format")
        if found != str(FORMAT):
            raise JournalError(f"{path} has format {found!r}, this version reads {FORMAT}")
        return journal

    @staticmethod
    @contextmanager
    def _guard(path: Path) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            way_out = _WAYS_OUT.get(getattr(error, "sqlite_errorname", ""), "restore it from a copy or start a new run")
            raise JournalError(f"{path}: {error}; {way_out}") from error

    def close(self) -> None:
        self._closing()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @staticmethod
    def _event(connection: sqlite3.Connection, kind: str, key: str | None, data: Any) -> None:
        connection.execute(
            "INSERT INTO events (at, kind, key, data) VALUES (?, ?, ?, ?)",
            (time.time(), kind, key, json.dumps(data, allow_nan=False)),
        )

    def propose(self, architecture: Architecture) -> bool:
        """Remember a proposal. False if this architecture was proposed before: then nothing changes."""
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM candidates WHERE key = ?", (architecture.key,)).fetchone():
                return False
            connection.execute(
                "INSERT INTO candidates (key, architecture, proposed_at) VALUES (?, ?, ?)",
                (architecture.key, json.dumps(architecture.to_json()), time.time()),
            )
            self._event(connection, "proposed", architecture.key, architecture.to_json())
        return True

    def measured(self, key: str, *, model: str, measurement: Mapping[str, Any]) -> None:
        """A latency of the candidate on a device model, as Measurement JSON."""
        with self._transaction() as connection:
            self._require(connection, key)
            self._event(connection, "measured", key, {"model": model, "measurement": dict(measurement)})

    def trained(self, key: str, *, evaluation: Mapping[str, Any]) -> None:
        """An accuracy of the candidate, with its "seed", "epochs" and "accuracy" (a fraction)."""
        with self._transaction() as connection:
            self._require(connection, key)
            self._event(connection, "trained", key, dict(evaluation))

    def conclude(self, key: str, *, status: Status, reason: str | None = None) -> bool:
        """The last word on a candidate. False if it has been spoken: then nothing changes."""
        with self._transaction() as connection:
            self._require(connection, key)
            done = connection.execute(
                "UPDATE candidates SET status = ?, reason = ?, concluded_at = ?,"
                " conclusion = (SELECT COALESCE(MAX(conclusion), 0) + 1 FROM candidates)"
                " WHERE key = ? AND status IS NULL",
                (str(status), reason, time.time(), key),
            )
            if done.rowcount == 0:
                return False
            self._event(connection, "concluded", key, {"status": str(status), "reason": reason})
        return True

    def promote(self, key: str, *, reason: str | None = None) -> bool:
        """A stopped candidate was trained to the end after all, so it is done. False if it was not stopped."""
        with self._transaction() as connection:
            self._require(connection, key)
            promoted = connection.execute(
                "UPDATE candidates SET status = ?, reason = ? WHERE key = ? AND status = ?",
                (str(Status.DONE), reason, key, str(Status.STOPPED)),
            )
            if promoted.rowcount == 0:
                return False
            self._event(connection, "promoted", key, {"reason": reason})
        return True

    def note(self, kind: str, data: Any) -> None:
        """Anything else that is worth keeping: the start of a session, the teacher, an interruption."""
        with self._transaction() as connection:
            self._event(connection, kind, None, data)

    @staticmethod
    def _require(connection: sqlite3.Connection, key: str) -> None:
        if not connection.execute("SELECT 1 FROM candidates WHERE key = ?", (key,)).fetchone():
            raise JournalError(f"no candidate {key!r} was proposed")

    # --- reading -----------------------------------------------------------------------------------------------

    def meta(self, name: str) -> str | None:
        with self._guard(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the run was created with."""
        value: dict[str, Any] = json.loads(self.meta("config") or "{}")
        return value

    def candidates(self) -> list[Candidate]:
        """All candidates in the order of their proposals."""
        return self._read_candidates(None)

    def candidate(self, key: str) -> Candidate:
        """One candidate. Raises JournalError if it was never proposed."""
        found = self._read_candidates(key)
        if not found:
            raise JournalError(f"no candidate {key!r} was proposed")
        return found[0]

    def _read_candidates(self, key: str | None) -> list[Candidate]:
        with self._guard(self.path):
            self._connection.execute("BEGIN")  # one snapshot for both queries
            try:
                rows = self._connection.execute(
                    "SELECT * FROM candidates WHERE ?1 IS NULL OR key = ?1 ORDER BY ordinal", (key,)
                ).fetchall()
                facts = self._connection.execute(
                    "SELECT kind, key, data FROM events WHERE kind IN ('measured', 'trained')"
                    " AND (?1 IS NULL OR key = ?1) ORDER BY id",
                    (key,),
                ).fetchall()
            finally:
                self._connection.execute("COMMIT")
        try:
            return _as_candidates(rows, facts)
        except (ValueError, KeyError, TypeError) as error:  # nothing that this class wrote
            said = f"no {error}" if isinstance(error, KeyError) else error
            raise DamagedJournal(
                f"{self.path} is damaged: {said}; restore it from a copy or start a new run"
            ) from error

    def observations(self) -> list[Observation]:
        """All conclusions in their order: replay these to rebuild a policy."""
        concluded = [candidate for candidate in self.candidates() if candidate.conclusion is not None]
        return [c.observation() for c in sorted(concluded, key=lambda c: c.conclusion or 0)]

    def events(self, kind: str | None = None) -> list[tuple[float, str, str | None, Any]]:
        """(seconds since the epoch, kind, key, data) of all events, or of one kind, oldest first."""
        with self._guard(self.path):
            rows = self._connection.execute(
                "SELECT at, kind, key, data FROM events WHERE ? IS NULL OR kind = ? ORDER BY id", (kind, kind)
            ).fetchall()
        return [(row["at"], row["kind"], row["key"], json.loads(row["data"])) for row in rows]


def _as_candidates(rows: Iterable[sqlite3.Row], facts: Iterable[sqlite3.Row]) -> list[Candidate]:
    """Raises ValueError, KeyError or TypeError for what `Journal` does not write."""
    measurements: dict[str, dict[str, Any]] = {}
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for fact in facts:
        data = _read(fact["data"])
        if fact["kind"] == "measured":
            measurements.setdefault(fact["key"], {})[data["model"]] = data["measurement"]
        else:
            evaluations.setdefault(fact["key"], []).append(data)
    return [
        Candidate(
            ordinal=row["ordinal"],
            architecture=Architecture.from_json(_read(row["architecture"])),
            status=None if row["status"] is None else Status(row["status"]),
            reason=row["reason"],
            proposed_at=row["proposed_at"],
            concluded_at=row["concluded_at"],
            conclusion=row["conclusion"],
            measurements=measurements.get(row["key"], {}),
            evaluations=tuple(evaluations.get(row["key"], ())),
        )
        for row in rows
    ]


def _read(text: str) -> Any:
    """JSON. Raises ValueError, also for NaN and infinity, which are never written."""

    def refuse(name: str) -> Any:
        raise ValueError(f"it holds {name}, which no search writes")

    return json.loads(text, parse_constant=refuse)
