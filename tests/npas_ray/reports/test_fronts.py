"""A run in mode front: its tables, its page and its numbers agree."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from npas_ray.config import SearchConfig
from npas_ray.journal import Journal
from npas_ray.reports import read_run, text, write_reports
from npas_ray.reports.run_data import RunData
from npas_ray.runs.setting import front_note, make_objective

MakeRun = Callable[..., Path]
DENSE_MS = 0.12


def front_run(make_run: MakeRun, **objective: Any) -> Path:
    """An invented run whose latencies reach up to about the dense network's."""
    asked = {"mode": "front", "axes": ["latency", "size", "energy"]} | objective
    config = SearchConfig.from_json({"name": "front", "objective": asked, "search": {"candidates": 48}})
    run_dir = make_run("front", budget_ms=None, config=config.to_json())
    with Journal.open(run_dir / "journal.sqlite") as journal:
        journal.note("front", front_note(config, make_objective(config, {"local": DENSE_MS})))
    return run_dir


@pytest.fixture
def data(make_run: MakeRun) -> RunData:
    return read_run(front_run(make_run))


def test_the_members_are_what_nothing_beats(data: RunData) -> None:
    whole = data.whole_front
    assert whole is not None
    assert whole.axes == ("latency:local", "size", "energy")

    def point(candidate: Any) -> list[float]:
        return [1 - candidate.accuracy, *(whole.cost(candidate, axis) for axis in whole.axes)]

    points = [point(candidate) for candidate in data.done]

    def beaten(p: list[float]) -> bool:
        return any(all(x <= y for x, y in zip(q, p, strict=True)) and q != p for q in points)

    expected = {c.key for c in data.done if not beaten(point(c))}
    assert {c.key for c in whole.members} == expected
    assert len(expected) > len(data.front("local"))
    latencies = [c.latency_ms["local"] for c in whole.members]
    assert latencies == sorted(latencies)
    assert data.best in whole.members


def test_the_hypervolume_grows_to_its_value(data: RunData) -> None:
    whole = data.whole_front
    assert whole is not None
    steps, volumes = zip(*whole.curve, strict=True)
    assert list(steps) == sorted(set(steps))
    assert list(volumes) == sorted(set(volumes))
    assert volumes[-1] == pytest.approx(whole.hypervolume)
    assert 0 < whole.hypervolume < 1
    assert data.summary()["whole_front"]["hypervolume"] == whole.hypervolume


def test_terminal_page_and_tables_show_it(make_run: MakeRun) -> None:
    run_dir = front_run(make_run)
    paths = write_reports(run_dir)
    data = read_run(run_dir)
    whole = data.whole_front
    assert whole is not None
    said = text.results(data, paths)
    assert "Pareto front over accuracy, latency on local, size of the weights, energy proxy" in said
    assert f"hypervolume {whole.hypervolume:.4f} of the box up to accuracy 0 at 0.12 ms on local and" in said
    assert "(energy is a proxy)" in said
    numbers = [line.split()[0].lstrip("*") or line.split()[1] for line in said.splitlines()[2 : 2 + len(whole.members)]]
    assert len(numbers) == len(whole.members)
    page = paths.html.read_text(encoding="utf-8")
    for heading in ("The front over 4 axes", "Hypervolume over the search", "Accuracy against size of the weights, kB"):
        assert heading in page
    assert "Accuracy against energy proxy, µJ" in page
    rows = list(csv.DictReader(paths.pareto_csv.read_text(encoding="utf-8").splitlines()))
    first = [row for row in rows if row["model"] == "(all axes)"]
    assert [int(row["ordinal"]) for row in first] == [c.ordinal for c in whole.members]
    assert [float(row["size_bytes"]) for row in first] == [whole.cost(c, "size") for c in whole.members]
    assert all(float(row["energy_proxy_uj"]) > 0 for row in first)


def test_before_anything_was_measured_there_is_no_front(make_run: MakeRun) -> None:
    config = SearchConfig.from_json({"name": "front", "objective": {"mode": "front"}})
    run_dir = make_run("early", candidates=0, config=config.to_json())
    assert read_run(run_dir).whole_front is None
    assert "Pareto" not in text.results(read_run(run_dir), write_reports(run_dir))


def test_with_nothing_trained_the_front_is_empty(make_run: MakeRun) -> None:
    run_dir = front_run(make_run, budgets_ms={"local": 1e-6})
    data = read_run(run_dir)
    assert data.whole_front is not None
    assert data.whole_front.members == []
    assert data.best is None
    assert "no candidate was trained within the budgets" in text.results(data, write_reports(run_dir))


def test_a_damaged_note_is_no_front(make_run: MakeRun) -> None:
    run_dir = front_run(make_run)
    with Journal.open(run_dir / "journal.sqlite") as journal:
        journal.note("front", {"axes": ["speed"], "targets": ["pdp-11"]})
    assert read_run(run_dir).whole_front is None
    write_reports(run_dir)


def test_the_tables_say_how_surely_a_budget_is_kept(make_run: MakeRun) -> None:
    rows = list(csv.DictReader(write_reports(make_run()).candidates_csv.read_text("utf-8").splitlines()))
    kept = {row["status"]: [] for row in rows}  # type: dict[str, list[float]]
    for row in rows:
        if row["p_within_budgets"]:
            kept[row["status"]].append(float(row["p_within_budgets"]))
    assert min(kept["done"]) >= 0.5 > max(kept["over-budget"])
