"""Run directories: made whole, never overwritten, one writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from npas_ray.errors import RunError
from npas_ray.journal import Journal
from npas_ray.runs.directory import RunDirectory


def test_a_new_run_has_a_journal_with_its_configuration(tmp_path: Path) -> None:
    run = RunDirectory.prepare(tmp_path / "runs" / "x", config={"seed": 3}, resume=False)
    with Journal.open(run.journal) as journal:
        assert journal.config == {"seed": 3}
    assert RunDirectory.existing(run.path) == run
    assert run.name == "x"


def test_resume_of_nothing_is_a_start(tmp_path: Path) -> None:
    assert RunDirectory.prepare(tmp_path / "x", config={}, resume=True).journal.is_file()


def test_a_start_that_died_before_its_journal_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / "run.lock").touch()
    (tmp_path / "journal.sqlite.new").write_bytes(b"half")
    assert RunDirectory.prepare(tmp_path, config={}, resume=False).journal.is_file()


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    run = RunDirectory.prepare(tmp_path / "x", config={}, resume=False)
    with pytest.raises(RunError, match="--resume"):
        RunDirectory.prepare(run.path, config={}, resume=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunError, match="not empty"):
        RunDirectory.prepare(tmp_path / "other", config={}, resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        RunDirectory.prepare(tmp_path / "file", config={}, resume=False)


def test_a_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run at"):
        RunDirectory.existing(tmp_path / "missing")
    with pytest.raises(RunError, match="not a run"):
        RunDirectory.existing(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    run = RunDirectory.prepare(tmp_path / "x", config={}, resume=False)
    with run.locked():
        with pytest.raises(RunError, match="another npas"), run.locked(timeout_s=0.1):
            pass
    with run.locked():
        pass


def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(RunError, match="cannot make the run directory"):
        RunDirectory.prepare(Path("/proc/npas-run"), config={}, resume=False)
