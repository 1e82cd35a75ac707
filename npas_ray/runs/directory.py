"""A run's directory: what lies where, and who may write."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npas_ray.errors import InfrastructureError, RunError
from npas_ray.journal import Journal


@dataclass(frozen=True)
class RunDirectory:
    """Names of everything in runs/NAME."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def teacher(self) -> Path:
        return self.path / "teacher"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def farm_journal(self) -> Path:
        """What happened to the run's phones, if it has any (docs/farm.md)."""
        return self.path / "farm.sqlite"

    @property
    def calibrations(self) -> Path:
        return self.path / "calibrations"

    @property
    def tune(self) -> Path:
        return self.path / "tune"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def is_shipped(self) -> bool:
        """Whether best/ is there and whole."""
        return (self.best / "summary.json").is_file()

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """The run at `path`. Raises RunError if there is none."""
        run = cls(path)
        if not path.is_dir():
            raise RunError(f"there is no run at {path}")
        if not run.journal.is_file():
            raise RunError(f"{path} is not a run: it has no {run.journal.name}")
        return run

    @classmethod
    def prepare(cls, path: Path, *, config: Mapping[str, Any], resume: bool) -> RunDirectory:
        """A directory to search in: a new one, or with `resume` an earlier one. Creates the journal.

        Raises RunError: it cannot be written, holds something else, or holds a run and `resume` is false.
        """
        run = cls(path)
        if run.journal.is_file():
            if not resume:
                raise RunError(f"{path} holds a run already; continue it with --resume or name another --run-dir")
            _check_writable(path)
            return run
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; a run needs a directory")
        if path.is_dir() and any(entry.name not in _LEFT_BY_A_START for entry in path.iterdir()):
            raise RunError(f"{path} is not empty and holds no run; name another --run-dir")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run directory {path}: {error.strerror}") from error
        _check_writable(path)
        with run.locked():
            if not run.journal.exists():
                Journal.create(run.journal, config=config).close()
        return run

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the journal for one writer, waiting for the one of a killed run to be gone. Raises RunError."""
        with self.locked(name="journal.lock", timeout_s=_TAKEOVER_S):
            yield

    @contextmanager
    def locked(self, *, name: str = "run.lock", timeout_s: float = 0.0) -> Iterator[None]:
        """Holds the run for one process; the kernel lets go of it however that process ends.

        Raises RunError if another process holds it for `timeout_s`.
        """
        with open(self.path / name, "a", encoding="utf-8") as file:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise RunError(f"another npas is working on {self.path} (it holds {name})") from None
                    time.sleep(0.05)
            yield


# how long a resumed run waits for the conductor of a killed one, which lives until its Ray notices
_TAKEOVER_S = 60.0

# what a start leaves that died before the journal was there
_LEFT_BY_A_START = {"run.lock", "journal.sqlite.new", "journal.sqlite.new-journal", "journal.sqlite.new-wal"}


def _check_writable(path: Path) -> None:
    """Raises RunError if no file can be made in `path`, InfrastructureError if the disk is full."""
    probe = path / f".writable-{os.getpid()}"
    try:
        probe.write_bytes(b"npas")
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == 30:  # EROFS
            raise RunError(f"cannot write into {path}: {error.strerror}") from error
        raise InfrastructureError(f"cannot write into {path}: {error.strerror}") from error
    finally:
        probe.unlink(missing_ok=True)
