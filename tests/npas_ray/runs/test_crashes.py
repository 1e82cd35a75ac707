"""Whole searches that are killed in the middle: nothing lost, nothing twice. The journal proves it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from npas_ray.errors import JournalError
from npas_ray.journal import Journal
from npas_ray.search.ladder import Climb, Ladder
from npas_ray.search.policy import Status

ROOT = Path(__file__).parents[3]
CANDIDATES = 14
CONFIG = f"""
name: crash
seed: 3
search: {{policy: npas, candidates: {CANDIDATES}}}
objective: {{budgets_ms: {{local: 100}}}}
training: {{epochs: 1, workers: 1, final_epochs: 1}}
measurement: {{warmup_s: 0.01, min_time_s: 0.05, max_relative_ci: 0.5}}
"""


def start(config: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    """The search as a user starts it."""
    with run_dir.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "npas_ray", "search", str(config), "--run-dir", str(run_dir), "--resume"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=os.environ | {"NPAS_CRASH_TEST": str(run_dir)},  # descendants inherit that, so they can be found
        )


def concluded(run_dir: Path) -> int:
    try:
        with Journal.open(run_dir / "journal.sqlite", read_only=True) as journal:
            return sum(candidate.status is not None for candidate in journal.candidates())
    except JournalError:
        return 0


def wait_for(run_dir: Path, count: int, search: subprocess.Popen[bytes], *, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while concluded(run_dir) < count:
        log = run_dir.with_suffix(".log")
        assert search.poll() is None, f"the search ended by itself:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"no {count} candidates after {timeout_s} s:\n{log.read_text()[-3000:]}"
        time.sleep(0.05)


def assert_nothing_lost_nothing_twice(run_dir: Path) -> None:
    with Journal.open(run_dir / "journal.sqlite", read_only=True) as journal:
        candidates = journal.candidates()
        proposed = [key for _, _, key, _ in journal.events("proposed")]
        trained = Counter((key, data["seed"], data["epochs"]) for _, _, key, data in journal.events("trained"))
        measured = Counter((key, data["model"]) for _, _, key, data in journal.events("measured"))
        ended = Counter(key for _, _, key, _ in journal.events("concluded"))
    assert len(candidates) == CANDIDATES
    assert Counter(proposed) == Counter(candidate.key for candidate in candidates), "a key was proposed twice"
    assert {candidate.status for candidate in candidates} <= {Status.DONE, Status.STOPPED}
    assert ended == Counter(candidate.key for candidate in candidates), "a candidate was concluded twice, or never"
    assert set(trained.values()) == {1}, f"trained twice: {[k for k, n in trained.items() if n > 1]}"
    assert set(measured.values()) == {1}, f"measured twice: {[k for k, n in measured.items() if n > 1]}"
    assert {key for key, _, _ in trained} == {key for key, _ in measured} == set(ended)


def assert_everybody_climbed_in_order(run_dir: Path) -> None:
    """Every decision of the ladder is the one that the journal's order of results asks for."""
    climb = Climb(Ladder((0, 1)))
    with Journal.open(run_dir / "journal.sqlite", read_only=True) as journal:
        seed = journal.config["seed"]
        for _, kind, key, data in journal.events():
            if kind == "trained" and data["seed"] == seed:
                climb.record(str(key), epochs=data["epochs"], accuracy=data["accuracy"])
            elif kind == "concluded":
                stopped = data["status"] == Status.STOPPED
                assert (climb.next_rung(str(key)), climb.is_finished(str(key))) == (None, not stopped)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ladder", [False, True])
def test_three_kills_of_the_driver_lose_nothing_and_repeat_nothing(tmp_path: Path, ladder: bool) -> None:
    config = tmp_path / "crash.yaml"
    config.write_text(CONFIG.replace("epochs: 1", "epochs: 1, ladder: [0]", 1) if ladder else CONFIG)
    run_dir = tmp_path / "crash"
    for count in (3, 6, 10):
        search = start(config, run_dir)
        wait_for(run_dir, count, search)
        search.send_signal(signal.SIGKILL)  # the driver alone: what it started must notice by itself
        search.wait()
        assert concluded(run_dir) < CANDIDATES, "killed too late to show anything"
    search = start(config, run_dir)
    assert search.wait(timeout=300) == 0, run_dir.with_suffix(".log").read_text()[-3000:]
    assert_nothing_lost_nothing_twice(run_dir)
    if ladder:
        assert_everybody_climbed_in_order(run_dir)
    assert (run_dir / "best" / "summary.json").is_file()
    assert (run_dir / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_a_run_that_can_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "crash.yaml"
    config.write_text(CONFIG)
    run_dir = tmp_path / "interrupted"
    search = start(config, run_dir)
    wait_for(run_dir, 2, search)
    search.send_signal(number)
    assert search.wait(timeout=60) == 130
    assert "--resume" in run_dir.with_suffix(".log").read_text()
    assert (run_dir / "report.html").is_file()


def workers(name: str, *, run_dir: Path) -> list[int]:
    """Process ids of the run's Ray workers whose title has a name in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if title.startswith("ray::") and name in title and f"NPAS_CRASH_TEST={run_dir}".encode() in environment:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_any_actor_may_die(tmp_path: Path) -> None:
    config = tmp_path / "crash.yaml"
    config.write_text(f"{CONFIG}space: {{operators: [3x3, skip], schemes: [kernel-block]}}\n")
    run_dir = tmp_path / "actors"
    search = start(config, run_dir)
    for count, victim in ((2, "ConductorActor"), (5, "Trainer"), (8, "Broker")):
        wait_for(run_dir, count, search)
        victims = workers(victim, run_dir=run_dir)
        assert victims, f"no process of {victim}"
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    assert search.wait(timeout=300) == 0, run_dir.with_suffix(".log").read_text()[-3000:]
    assert_nothing_lost_nothing_twice(run_dir)
