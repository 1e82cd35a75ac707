"""A journal that somebody changed, or that lost a part: `npas search --resume` says so in a line and starts nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from npas_ray.cli import main
from npas_ray.config import load_config
from npas_ray.journal import Journal
from npas_ray.runs.setting import make_space
from npas_ray.search.policy import Status

CONFIG = "name: example\nobjective: {budgets_ms: {local: 0.05}}\ncluster: {cpus: 1}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "example.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def journal(config: Path, tmp_path: Path) -> Path:
    """A run of five: three are done, one is over its budget, one is under way."""
    loaded = load_config(config, [])
    space, rng = make_space(loaded), np.random.default_rng(0)
    path = tmp_path / "run" / "journal.sqlite"
    path.parent.mkdir()
    with Journal.create(path, config=loaded.to_json()) as made:
        for index in range(5):
            architecture = space.sample(rng)
            made.propose(architecture)
            if index == 4:
                break
            latency_ms = 0.09 if index == 3 else 0.04
            measured = {"latency_ms": latency_ms, "ci_low_ms": latency_ms * 0.99, "ci_high_ms": latency_ms * 1.01}
            made.measured(architecture.key, model="local", measurement=measured)
            if index < 3:
                made.trained(architecture.key, evaluation={"accuracy": 0.7, "seed": 0, "epochs": 2})
            made.conclude(architecture.key, status=Status.OVER_BUDGET if index == 3 else Status.DONE)
    return path


def change(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which npas says that the journal is damaged; exit 4."""
    assert main(argv) == 4
    [line] = [line for line in capsys.readouterr().err.splitlines() if "no report of" not in line]
    return line


def resume_refused(capsys: pytest.CaptureFixture[str], config: Path, journal: Path) -> str:
    """The same of a search that is resumed; a dry run foretells it, word for word, and leaves the journal alone."""
    search = ("search", str(config), "--run-dir", str(journal.parent), "--resume")
    before = journal.read_bytes()
    foretold = refused(capsys, *search, "--dry-run")
    assert journal.read_bytes() == before
    assert refused(capsys, *search) == foretold
    return foretold


def test_a_dry_run_over_a_whole_journal(config: Path, journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(config), "--run-dir", str(journal.parent), "--resume", "--dry-run"]) == 0
    assert "(to be resumed, 4 of " in capsys.readouterr().out


OF_THE_SECOND = "key = (SELECT key FROM candidates WHERE ordinal = 2)"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM candidates WHERE ordinal = 2", "proposal 2 is missing before proposal 3"),
        ("DELETE FROM candidates WHERE ordinal IN (1, 2, 3)", "proposal 1 is missing before proposal 4"),
        ("UPDATE candidates SET conclusion = 9 WHERE ordinal = 3", "conclusion 3 is missing before conclusion 4"),
        ("UPDATE candidates SET status = NULL WHERE ordinal = 1", "conclusion 1 is missing before conclusion 2"),
        (f"DELETE FROM events WHERE kind = 'trained' AND {OF_THE_SECOND}", "status is done, but it has no accuracy"),
        (
            f"DELETE FROM events WHERE kind = 'measured' AND {OF_THE_SECOND}",
            "candidate #2 is done, but has no latency on 'local'",
        ),
        ("UPDATE candidates SET status = 'splendid' WHERE ordinal = 2", "'splendid' is not a valid Status"),
        ("""UPDATE candidates SET architecture = '["3x3"]' WHERE ordinal = 2""", "candidate #2, ['3x3'], is not in"),
        ("UPDATE candidates SET architecture = 'what' WHERE ordinal = 2", "Expecting value"),
    ],
)
def test_a_missing_middle(
    config: Path, journal: Path, capsys: pytest.CaptureFixture[str], statement: str, expected: str
) -> None:
    change(journal, statement)
    line = resume_refused(capsys, config, journal)
    assert line.startswith(f"npas: error: {journal} is damaged: ")
    assert expected in line
    assert "restore it from a copy" in line


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("NaN", "it holds NaN, which no search writes"),
        ("Infinity", "it holds Infinity, which no search writes"),
        ("-Infinity", "it holds -Infinity"),
        ("1e999", "accuracy is a fraction in [0, 1], got inf"),
        ("1.5", "accuracy is a fraction in [0, 1], got 1.5"),
        ('"high"', "candidate #2"),
    ],
)
def test_an_impossible_accuracy(
    config: Path, journal: Path, capsys: pytest.CaptureFixture[str], value: str, expected: str
) -> None:
    evaluation = json.dumps({"accuracy": 0.0, "seed": 0, "epochs": 2}).replace("0.0", value)
    change(journal, f"UPDATE events SET data = '{evaluation}' WHERE kind = 'trained' AND {OF_THE_SECOND}")
    line = resume_refused(capsys, config, journal)
    assert line.startswith(f"npas: error: {journal} is damaged: ")
    assert expected in line


@pytest.mark.parametrize(("value", "expected"), [("NaN", "it holds NaN"), ("-1", "a positive number of ms, got -1")])
def test_an_impossible_latency(
    config: Path, journal: Path, capsys: pytest.CaptureFixture[str], value: str, expected: str
) -> None:
    data = f'{{"model": "local", "measurement": {{"latency_ms": {value}, "ci_low_ms": 1, "ci_high_ms": 1}}}}'
    change(journal, f"UPDATE events SET data = '{data}' WHERE kind = 'measured' AND {OF_THE_SECOND}")
    line = resume_refused(capsys, config, journal)
    assert expected in line


@pytest.mark.parametrize("command", ["report", "status"])
def test_reports_say_it_too(journal: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    change(journal, "UPDATE events SET data = replace(data, '0.7', 'NaN') WHERE kind = 'trained'")
    assert "is damaged: it holds NaN" in refused(capsys, command, str(journal.parent))
