"""The committed tables: readable, of today's spaces, and answered as they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks._races import TABLES, Race, run
from benchmarks.tables.choose import evolved, near
from benchmarks.tables.features import Features
from benchmarks.tables.landscape import SHARES, Tabular
from benchmarks.tables.spaces import SPACES
from benchmarks.tables.surrogate import Surrogate, expit, fit_accuracy, fit_latency, logit
from benchmarks.tables.table import EPOCHS, FOLDER, Table, load, save
from benchmarks.tables.train import read_lines


@pytest.fixture(scope="module")
def table() -> Table:
    return load("digits")


def test_every_table_is_of_a_space_and_loads() -> None:
    assert set(TABLES) <= set(SPACES) and "digits" in TABLES
    for name in TABLES:
        found = load(name)
        assert len(np.unique(found.rows, axis=0)) == len(found.rows)
        assert (found.rows < found.features.encoding.sizes).all()
        known = found.evaluations[np.isfinite(found.evaluations)]
        assert known.min() > 0.02 and known.max() < 1
        assert np.nanmin(found.latency_ms) > 0
        facts = json.loads((FOLDER / f"{name}.json").read_text())
        assert facts["architectures"] == len(found.rows)
        assert facts["cross_validated"]["accuracy_spearman"] > 0.7


def test_what_was_measured_is_answered_as_measured(table: Table) -> None:
    measured = np.isfinite(table.latency_ms)
    assert np.array_equal(table.latency(table.rows[measured]), table.latency_ms[measured])
    assert np.isfinite(table.latency(table.rows)).all()


def test_what_was_trained_is_answered_between_the_evaluation_and_the_surrogate(table: Table) -> None:
    ours = table.evaluations[:, [epochs == EPOCHS for epochs, _ in table.columns]]
    once = np.flatnonzero(np.isfinite(ours).sum(axis=1) == 1)[:200]
    own, guess = np.nanmean(ours[once], axis=1), table.accuracy_surrogate(table.features, table.rows[once])
    answer = table.accuracy(table.rows[once])
    assert (answer <= np.maximum(own, guess) + 1e-9).all() and (answer >= np.minimum(own, guess) - 1e-9).all()


def test_one_more_seed_is_trusted_more(table: Table) -> None:
    ours = [place for place, (epochs, _) in enumerate(table.columns) if epochs == EPOCHS]
    row = table.rows[np.isfinite(table.evaluations[:, ours]).any(axis=1)][0]
    place = int(np.flatnonzero((table.rows == row).all(axis=1))[0])
    guess = float(table.accuracy_surrogate(table.features, row[None])[0])

    def answer(count: int) -> float:
        evaluations = np.full((len(table.rows), 4), np.nan)
        evaluations[place, :count] = 0.5
        columns = tuple((EPOCHS, seed) for seed in range(4))
        changed = dataclasses.replace(table, columns=columns, evaluations=evaluations)
        return float(changed.accuracy(row[None])[0])

    assert answer(0) == pytest.approx(guess)
    assert abs(answer(4) - 0.5) < abs(answer(1) - 0.5) < abs(guess - 0.5)


def test_a_saved_table_is_the_same_table(table: Table, tmp_path: Path) -> None:
    save(table, {"architectures": len(table.rows)}, tmp_path)
    again = load("digits", tmp_path)
    rows = Tabular(table, feasible_share=0.3).random(100, np.random.default_rng(0))
    assert np.array_equal(again.rows, table.rows) and again.columns == table.columns
    assert np.array_equal(again.accuracy(rows), table.accuracy(rows))
    assert np.array_equal(again.latency(rows), table.latency(rows))


def test_a_table_of_a_space_with_a_choice_that_is_gone_is_refused(table: Table, tmp_path: Path) -> None:
    save(table, {}, tmp_path)
    path = tmp_path / "digits.json"
    document = json.loads(path.read_text())
    document["choices"][2][0] = "3x3/filter@99"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="layer 2 has no choice 3x3/filter@99"):
        load("digits", tmp_path)


def test_rows_follow_choices_that_changed_places(table: Table, tmp_path: Path) -> None:
    save(table, {}, tmp_path)
    path = tmp_path / "digits.json"
    document = json.loads(path.read_text())
    document["choices"][0][:2] = document["choices"][0][1::-1]
    path.write_text(json.dumps(document))
    swapped = load("digits", tmp_path).rows[:, 0]
    first = table.rows[:, 0]
    assert np.array_equal(swapped, np.where(first < 2, 1 - first, first))


def test_budgets_are_what_so_many_of_the_space_keep(table: Table) -> None:
    budgets = [Tabular(table, feasible_share=share).budget_ms for share in SHARES]
    assert budgets == sorted(budgets)
    landscape = Tabular(table, feasible_share=SHARES[1])
    rows = landscape.random(4000, np.random.default_rng(8))
    assert (landscape.latency_ms(rows) <= landscape.budget_ms).mean() == pytest.approx(SHARES[1], abs=0.03)


def test_noise_is_that_of_the_tables_seeds(table: Table) -> None:
    landscape, rng = Tabular(table, feasible_share=0.3), np.random.default_rng(0)
    drawn = np.array([landscape.noisy(0.8, rng) for _ in range(2000)])
    assert logit(drawn).std() == pytest.approx(table.noise.evaluation, rel=0.1)


def test_near_ones_are_below_the_middle_and_evolved_ones_are_new_and_better(table: Table) -> None:
    rng = np.random.default_rng(0)
    some = near(table, 40, rng)
    middle = np.median(table.latency(rng.integers(table.features.encoding.sizes, size=(1000, table.space.layers))))
    assert np.median(table.latency(some)) < middle
    bred = evolved(table, 24, rng)
    assert len(np.unique(bred, axis=0)) == 24 and not any(row in table for row in bred)
    assert np.median(table.accuracy(bred)) > np.median(table.accuracy(some))


def test_a_race_is_the_same_each_time_and_never_gets_worse_in_hypervolume() -> None:
    race = Race("digits", "random+predictor", seed=1, evaluations=20)
    first, again = run(race), run(race)
    assert first.values == again.values and len(first.values) == 20
    front = run(dataclasses.replace(race, front=True))
    assert len(front.values) == 2 and 0 < front.values[0] <= front.values[1] < 1


def test_surrogates_learn_what_is_a_sum_of_work_and_repeat_themselves() -> None:
    space = SPACES["digits"].space
    features = Features(space)
    rows = np.random.default_rng(0).integers(features.encoding.sizes, size=(400, space.layers))
    seen = features(rows)
    latency_ms = 1 + seen[:, -4] * 0.5  # kept work
    fitted = fit_latency(features, rows[:300], latency_ms[:300])
    assert np.corrcoef(fitted(features, rows[300:]), latency_ms[300:])[0, 1] > 0.9
    accuracy = expit(0.4 * (seen[:, -4] - seen[:, -4].mean()) + 1)
    once, twice = (fit_accuracy(features, rows[:300], accuracy[:300], np.ones(300)) for _ in range(2))
    assert np.corrcoef(once(features, rows[300:]), accuracy[300:])[0, 1] > 0.9
    assert np.array_equal(once(features, rows), twice(features, rows))
    back = Surrogate.from_arrays(once.arrays("x."), "x.")
    assert np.allclose(back(features, rows), once(features, rows), atol=2e-3)


def test_what_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trained.jsonl"
    path.write_text('{"space": "digits"}\n{"space": "di\n\n{"space": "mobile"}\n')
    assert [line["space"] for line in read_lines(path)] == ["digits", "mobile"]
    assert list(read_lines(tmp_path / "none.jsonl")) == []
