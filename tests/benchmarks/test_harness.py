from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks._harness import Session, Timing, finish, interleave, relative_error, table


def test_sessions_take_turns_on_one_core_a_round_in_rotating_order() -> None:
    calls: list[tuple[str, int]] = []

    def session(name: str, ms: float) -> Session:
        def run(seconds: float, cpu: int) -> Sequence[float]:
            assert os.sched_getaffinity(0) == {cpu}
            calls.append((name, cpu))
            return [ms] * 9 + [100.0]

        return run

    allowed = os.sched_getaffinity(0)
    timings = interleave({"a": session("a", 1.0), "b": session("b", 2.0)}, rounds=3, seconds=0.01)
    assert [name for name, _ in calls] == ["a", "b", "b", "a", "a", "b"]
    assert all(first[1] == second[1] for first, second in zip(calls[::2], calls[1::2], strict=True))
    assert os.sched_getaffinity(0) == allowed
    assert timings["a"].rounds_ms == (1.0, 1.0, 1.0)
    assert timings["b"].over(timings["a"]) == 2.0


def test_the_affinity_comes_back_when_a_session_fails() -> None:
    def broken(seconds: float, cpu: int) -> Sequence[float]:
        raise RuntimeError("no answer")

    allowed = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError, match="no answer"):
        interleave({"broken": broken}, rounds=1, seconds=0.01)
    assert os.sched_getaffinity(0) == allowed


def test_a_ratio_is_taken_round_by_round() -> None:
    ours, peer = Timing((1.0, 10.0, 2.0)), Timing((2.0, 20.0, 5.0))
    assert peer.over(ours) == 2.0
    assert (ours.ms, ours.typical_ms) == (1.0, 2.0)


def test_relative_error_knows_nan() -> None:
    assert relative_error(np.array([1.0, 3.9]), np.array([1.0, -4.0])) == pytest.approx(7.9 / 4)
    assert relative_error(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == float("inf")


def test_table_and_json(tmp_path: Path) -> None:
    assert table(("name", "ms"), [("ours", 1.23456), ("a peer", "-")]).splitlines() == [
        "name       ms",
        "------  -----",
        "ours    1.235",
        "a peer      -",
    ]
    finish("test", {"results": [1]}, tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["benchmark"] == "test"
    assert written["results"] == [1]
    assert written["machine"]["cores"] == os.cpu_count()
