"""The journal: durable, append-only, one conclusion a candidate."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from npas_ray.errors import JournalError
from npas_ray.journal import Journal
from npas_ray.search.policy import Status
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme

A = Architecture((LayerChoice(Operator.CONV3X3, Scheme.BLOCK_PUNCHED, 2.5), LayerChoice(Operator.SKIP)))
B = Architecture((LayerChoice(Operator.CONV1X1), LayerChoice(Operator.SKIP)))
MEASUREMENT = {"latency_ms": 1.0, "ci_low_ms": 0.9, "ci_high_ms": 1.1}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path / "journal.sqlite", config={"name": "x"})


def test_a_candidate_is_proposed_and_concluded_once(journal: Journal) -> None:
    assert journal.propose(A)
    assert not journal.propose(A)
    assert journal.conclude(A.key, status=Status.DONE)
    assert not journal.conclude(A.key, status=Status.FAILED, reason="too late")
    (candidate,) = journal.candidates()
    assert (candidate.status, candidate.reason, candidate.ordinal) == (Status.DONE, None, 1)
    assert [kind for _, kind, _, _ in journal.events()] == ["proposed", "concluded"]


def test_facts_come_back_as_they_were_written(journal: Journal) -> None:
    journal.propose(A)
    journal.propose(B)
    journal.measured(A.key, model="local", measurement=MEASUREMENT)
    journal.trained(A.key, evaluation={"accuracy": 0.8, "seed": 0})
    journal.trained(A.key, evaluation={"accuracy": 0.9, "seed": 1})
    journal.conclude(B.key, status=Status.OVER_BUDGET, reason="slow")
    journal.conclude(A.key, status=Status.DONE)
    with Journal.open(journal.path, read_only=True) as reader:
        first, second = reader.candidates()
        assert first.architecture == A
        assert first.accuracy == pytest.approx(0.85)
        assert first.latency_ms == {"local": 1.0}
        assert second.reason == "slow"
        # replay follows the order of the conclusions, not of the proposals
        assert [o.architecture for o in reader.observations()] == [B, A]
        assert reader.observations()[0].accuracy is None
        assert reader.config == {"name": "x"}
        assert reader.candidate(B.key) == second


def test_facts_about_strangers_are_refused(journal: Journal) -> None:
    for call in (
        lambda: journal.measured("nobody", model="local", measurement=MEASUREMENT),
        lambda: journal.trained("nobody", evaluation={"accuracy": 1.0}),
        lambda: journal.conclude("nobody", status=Status.DONE),
        lambda: journal.candidate("nobody"),
    ):
        with pytest.raises(JournalError, match="nobody"):
            call()


def test_a_value_that_is_not_json_leaves_no_trace(journal: Journal) -> None:
    journal.propose(A)
    with pytest.raises(ValueError, match="JSON"):
        journal.trained(A.key, evaluation={"accuracy": float("nan")})
    assert journal.candidate(A.key).evaluations == ()
    journal.trained(A.key, evaluation={"accuracy": 0.5})  # and the journal still works
    assert journal.candidate(A.key).accuracy == 0.5


@pytest.mark.parametrize("keep", [0, 100, 4096, 9000])
def test_a_truncated_journal_is_one_clear_error(journal: Journal, tmp_path: Path, keep: int) -> None:
    for index in range(40):
        journal.propose(Architecture((LayerChoice(Operator.CONV3X3, Scheme.FILTER, 1.0 + index),)))
    journal.close()
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(journal.path.read_bytes()[:keep])
    with pytest.raises(JournalError, match=r"damaged\.sqlite.*(restore it|no journal)"):
        Journal.open(damaged)


def test_files_that_are_no_journal_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal at"):
        Journal.open(tmp_path / "missing")
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE meta (name TEXT, value TEXT)").connection.close()
    with pytest.raises(JournalError, match="format None"):
        Journal.open(other)
    text = tmp_path / "text"
    text.write_text("hello " * 1000)
    with pytest.raises(JournalError, match="not a database"):
        Journal.open(text)


def test_a_full_disk_loses_nothing_and_says_the_way_out(journal: Journal) -> None:
    journal.propose(A)
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite says the same as on a full disk
    with pytest.raises(JournalError, match="full; make room and resume"):
        journal.note("note", "x" * 100_000)
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    journal.note("note", "x" * 100_000)
    assert [kind for _, kind, _, _ in journal.events()] == ["proposed", "note"]


def test_create_never_overwrites(journal: Journal) -> None:
    with pytest.raises(JournalError, match="exists"):
        Journal.create(journal.path, config={})


WRITER = """
import sys
from pathlib import Path
from npas_ray.journal import Journal
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
journal = Journal.open(Path(sys.argv[1]))
for index in range(100000):
    journal.propose(Architecture((LayerChoice(Operator.CONV3X3, Scheme.FILTER, 2.0 + index),)))
    print(index, flush=True)  # the acknowledgement
"""


def test_what_was_acknowledged_survives_kill_9(journal: Journal) -> None:
    journal.close()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(journal.path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert writer.stdout is not None
    with writer.stdout as lines:
        acknowledged = [int(next(lines)) for _ in range(25)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in lines if line.strip()]
    writer.wait()
    with Journal.open(journal.path) as survivor:
        candidates = survivor.candidates()
    assert len(acknowledged) <= len(candidates) <= len(acknowledged) + 1
    assert [candidate.ordinal for candidate in candidates] == list(range(1, len(candidates) + 1))


def test_what_was_stopped_can_be_promoted_once_and_nothing_else_can(journal: Journal) -> None:
    journal.propose(A)
    journal.propose(B)
    journal.measured(A.key, model="local", measurement=MEASUREMENT)
    journal.trained(A.key, evaluation={"accuracy": 0.3, "seed": 0, "epochs": 0})
    journal.conclude(A.key, status=Status.STOPPED, reason="others were better")
    journal.conclude(B.key, status=Status.FAILED, reason="crashed")
    stopped = journal.candidate(A.key).observation()
    assert (stopped.status, stopped.accuracy, stopped.rungs) == (Status.STOPPED, 0.3, {0: 0.3})
    journal.trained(A.key, evaluation={"accuracy": 0.9, "seed": 0, "epochs": 2})
    assert journal.promote(A.key, reason="a second look")
    assert not journal.promote(A.key)
    assert not journal.promote(B.key)
    promoted, failed = journal.observations()  # in the order of their conclusions, as before
    assert (promoted.status, promoted.accuracy, promoted.rungs) == (Status.DONE, 0.9, {0: 0.3, 2: 0.9})
    assert (failed.status, failed.rungs) == (Status.FAILED, {})
    with pytest.raises(JournalError, match="no candidate 'stranger'"):
        journal.promote("stranger")


def test_accuracy_is_the_mean_over_the_seeds_of_the_longest_training(journal: Journal) -> None:
    journal.propose(A)
    for epochs, seed, accuracy in ((0, 0, 0.3), (2, 0, 0.9), (2, 1, 0.8)):
        journal.trained(A.key, evaluation={"accuracy": accuracy, "seed": seed, "epochs": epochs})
    candidate = journal.candidate(A.key)
    assert candidate.accuracy == pytest.approx(0.85)
    assert candidate.rungs == {0: 0.3, 2: pytest.approx(0.85)}
    assert [e["seed"] for e in candidate.best_trained] == [0, 1]
