from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from npas_ray.config import SearchConfig
from npas_ray.journal import Candidate
from npas_ray.networks.backbone import DIGITS
from npas_ray.reports import RunData, text
from npas_ray.reports.baselines import Baselines, Curve, Gap, simulate
from npas_ray.reports.baselines_chart import NARROW, WIDE, curve_chart, gap_rows
from npas_ray.reports.html import render
from npas_ray.reports.linear_surrogate import ChoiceFeatures, LinearSurrogate, cross_validated
from npas_ray.reports.simulated_search import Task, local_search, random_search, steps_of
from npas_ray.reports.tables import baselines_table
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.policy import Observation, Status
from npas_ray.search.registry import make_policy
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, Operator
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)
ENCODING = Encoding(SPACE)
BUDGET_MS = 0.09
_COST = {Operator.CONV3X3: 1.0, Operator.CONV1X1_DW3X3_CONV1X1: 0.7, Operator.DW3X3_CONV1X1: 0.4, Operator.CONV1X1: 0.3}
_WORTH = {
    Operator.CONV3X3: 0.4,
    Operator.CONV1X1_DW3X3_CONV1X1: 0.35,
    Operator.DW3X3_CONV1X1: 0.2,
    Operator.CONV1X1: 0.1,
}
Floats = NDArray[np.float64]


def truth(rows: IntArray) -> tuple[Floats, Floats]:
    """Accuracy and latency_ms `[m]` of a made-up task: pruned and small networks are faster and worse."""
    accuracies, latencies = [], []
    for row in rows:
        layers = ENCODING.decode(row).layers
        worth = sum(_WORTH.get(c.operator, 0.0) - 0.05 * np.log(c.rate) for c in layers)
        accuracies.append(0.1 + 0.88 / (1 + np.exp(2 - 2 * worth)))
        latencies.append(0.02 + 0.05 * sum(_COST.get(c.operator, 0.0) / c.rate for c in layers))
    return np.array(accuracies), np.array(latencies)


def excess(rows: IntArray) -> tuple[Floats, Floats]:
    accuracy, latency_ms = truth(rows)
    return accuracy, np.maximum(0, latency_ms / BUDGET_MS - 1)


TASK = Task(ENCODING, excess, 0.01, 0.1, 1.0, steps_of(ENCODING))


def run_of(policy: ReplayablePolicy, evaluations: int, *, noise: float = 0.01, seeds: int = 1) -> RunData:
    """A run of a policy on the made-up task."""
    rng = np.random.default_rng(policy.seed)
    candidates: list[Candidate] = []
    while len(candidates) < evaluations:
        for architecture in policy.propose(min(5, evaluations - len(candidates))):
            [accuracy], [latency_ms] = truth(ENCODING.encode([architecture]))
            over = latency_ms > BUDGET_MS
            seen = [float(np.clip(accuracy + rng.normal(0, noise), 0, 1)) for _ in range(seeds)]
            number = len(candidates) + 1
            candidates.append(
                Candidate(
                    number,
                    architecture,
                    Status.OVER_BUDGET if over else Status.DONE,
                    None,
                    0.0,
                    float(number),
                    number,
                    {"local": {"latency_ms": float(latency_ms)}},
                    () if over else tuple({"accuracy": a, "seed": s, "epochs": 2} for s, a in enumerate(seen)),
                )
            )
            status = candidates[-1].status or Status.FAILED
            policy.observe([Observation(architecture, status, None if over else seen[0], {"local": float(latency_ms)})])
    config = SearchConfig.from_json({"name": "made-up", "objective": {"budgets_ms": {"local": BUDGET_MS}}})
    return RunData(Path("runs/made-up"), config.to_json(), tuple(candidates), changed_at=1.0)


def policy(name: str, seed: int = 0, **settings: Any) -> ReplayablePolicy:
    return make_policy(name, SPACE, Objective({"local": BUDGET_MS}, chance=0.1), seed=seed, settings=settings)


def latency_ms(architectures: Sequence[Architecture]) -> dict[str, Floats]:
    return {"local": truth(ENCODING.encode(architectures))[1]}


@pytest.fixture(scope="module")
def npas_run() -> RunData:
    """Told latencies beforehand: without that two of three of its candidates are over this narrow budget."""
    return run_of(policy("npas", latency_predictor=latency_ms), 60)


@pytest.fixture(scope="module")
def found(npas_run: RunData) -> Baselines:
    return simulate(npas_run, seeds=24)


def test_a_good_run_is_ahead_and_a_random_one_is_not(found: Baselines) -> None:
    assert found.why_not is None
    ahead = {(gap.searcher, gap.evaluations): gap for gap in found.gaps}
    assert set(ahead) == {(name, count) for name in ("random", "local") for count in (15, 30, 60)}
    assert ahead["random", 60].verdict == "ahead"
    of_random = simulate(run_of(policy("random", 0), 120), seeds=24)
    assert of_random.why_not is None
    assert not [gap for gap in of_random.gaps if gap.verdict == "ahead"]


def test_the_simulation_is_near_the_truth(npas_run: RunData, found: Baselines) -> None:
    """What random and local search really reach on the task is within the simulated range, or a little beside it."""
    assert found.curves is not None
    for name, search in (("random", random_search), ("local", local_search)):
        real = np.mean([search(TASK, 60, np.random.default_rng(seed))[-1] for seed in range(30)])
        assert found.curves[name].low[-1] - 0.02 < real < found.curves[name].high[-1] + 0.02, name


def test_it_is_the_same_every_time(npas_run: RunData, found: Baselines) -> None:
    again = simulate(npas_run, seeds=24)
    assert again.gaps == found.gaps
    assert again.to_json() == found.to_json()
    other = replace(npas_run, config=dict(npas_run.config) | {"seed": 1})
    assert simulate(other, seeds=24).gaps != found.gaps


def test_what_is_said_of_it(found: Baselines, npas_run: RunData) -> None:
    fit = found.fit
    assert fit is not None
    assert fit.trained == len(npas_run.done)
    assert f"simulated on a surrogate of this run's {fit.trained} trained candidates" in found.basis
    assert f"correlation of {fit.rank:.2f}" in found.basis
    assert 0.5 < fit.rank <= 1
    assert fit.latency_error["local"] < 0.1
    assert found.headline.startswith("After 60 evaluations this run is ")
    assert json.loads(json.dumps(found.to_json()))["gaps"][0]["searcher"] == "random"
    said = text.baselines(found)
    assert found.basis in said
    assert sum(line.split()[:2] == ["local", "60"] for line in said.splitlines()) == 1


def test_noise_is_measured_where_seeds_were_repeated(found: Baselines) -> None:
    repeated = simulate(run_of(policy("random"), 120, noise=0.02, seeds=3), seeds=4).fit
    assert repeated is not None
    assert repeated.noise_source == "measured"
    assert 0.012 < repeated.noise < 0.028
    assert found.fit is not None
    assert found.fit.noise_source == "fitted"


def test_too_few_or_meaningless_results_give_no_curve(npas_run: RunData) -> None:
    few = replace(npas_run, candidates=npas_run.candidates[:12])
    assert str(simulate(few).why_not).startswith(f"{len(few.done)} candidates were trained, and at least 15")
    rng = np.random.default_rng(0)
    shuffled = [
        replace(c, evaluations=({"accuracy": float(rng.uniform(0.5, 0.9)), "seed": 0, "epochs": 2},))
        if c.evaluations
        else c
        for c in npas_run.candidates
    ]
    meaningless = simulate(replace(npas_run, candidates=tuple(shuffled)))
    assert "a curve would mean nothing" in str(meaningless.why_not)
    assert meaningless.curves is None
    equal = [
        replace(c, evaluations=({"accuracy": 0.5, "seed": 0, "epochs": 2},)) if c.evaluations else c
        for c in npas_run.candidates
    ]
    assert simulate(replace(npas_run, candidates=tuple(equal))).why_not == "all candidates are equally accurate"
    foreign = replace(npas_run, config={"space": {"backbone": "unknown"}})
    assert "space is not known here" in str(simulate(foreign).why_not)
    for data in (few, foreign):
        page = render(data)
        assert "This cannot be said of this run" in page
        assert baselines_table(data).empty
        assert "Against simpler searches: " in text.baselines(data.baselines)


def test_long_runs_are_simulated_at_some_points_only() -> None:
    simulated = simulate(run_of(policy("random"), 700))
    assert simulated.why_not is None
    assert len(simulated.evaluations) == 200
    assert simulated.evaluations[-1] == 700


def test_the_table_has_the_curves(npas_run: RunData) -> None:
    table = baselines_table(npas_run)
    assert list(table["evaluations"]) == list(range(1, 61))
    assert (table["random_p10"].dropna() <= table["random_p90"].dropna()).all()
    assert table["run_mean"].iloc[-1] == pytest.approx(npas_run.baselines.run.mean[-1] if npas_run.baselines.run else 0)
    assert isinstance(table, pd.DataFrame)


def test_the_page_shows_and_labels_it(npas_run: RunData) -> None:
    page = render(npas_run)
    assert "Would a simpler search have done as well?" in page
    assert '<span class="tag warn">simulated</span>' in page
    assert npas_run.baselines.headline in page
    assert page.count('class="curve random"') == 2  # wide and narrow


@pytest.mark.parametrize("frame", [WIDE, NARROW])
def test_the_chart_stays_in_its_frame(frame: Any) -> None:
    flat = Curve(np.full(3, 0.9), np.full(3, 0.9), np.full(3, 0.9))
    late = Curve(np.array([np.nan, 0.2, 0.9]), np.array([np.nan, 0.1, 0.89]), np.array([np.nan, 0.3, 0.91]))
    some = Baselines(None, None, 1, (1, 2, 3), flat, {"random": late, "local": flat}, (Gap("local", 3, 0.0, 0.0, 0.0),))
    chart = curve_chart(some, frame)
    assert chart is not None
    labels = sorted(line.label_y for line in chart.lines)
    assert all(after - before >= 19 - 1e-6 for before, after in itertools.pairwise(labels))
    assert all(frame.y1 - 40 <= label <= frame.y0 for label in labels)
    rows, zero = gap_rows(some)
    assert rows[0].x == zero
    assert curve_chart(Baselines("no"), frame) is None


@pytest.mark.parametrize(("name", "search"), [("random", random_search), ("local", local_search)])
def test_simulated_searches_are_those_of_the_policies(
    name: str, search: Callable[[Task, int, np.random.Generator], Floats]
) -> None:
    """In the mean over seeds, with batches of one."""
    fast = np.array([search(TASK, 60, np.random.default_rng(seed))[[29, 59]] for seed in range(60)])
    real = []
    for seed in range(12):
        searcher, rng, best, curve = policy(name, seed), np.random.default_rng(seed), (-1.0, 0.1), []
        for _ in range(60):
            [architecture] = searcher.propose(1)
            [accuracy], [over] = excess(ENCODING.encode([architecture]))
            latency = {"local": BUDGET_MS * (1 + over) if over else 0.5 * BUDGET_MS}
            measured = float(np.clip(accuracy + rng.normal(0, 0.01), 0, 1))
            if over:
                searcher.observe([Observation(architecture, Status.OVER_BUDGET, None, latency)])
            else:
                searcher.observe([Observation(architecture, Status.DONE, measured, latency)])
                best = max(best, (measured, float(accuracy)))
            curve.append(best[1])
        real.append([curve[29], curve[59]])
    spread = np.std(real, axis=0) / np.sqrt(12) + np.nanstd(fast, axis=0) / np.sqrt(60)
    assert (np.abs(np.nanmean(fast, axis=0) - np.mean(real, axis=0)) < 3 * spread).all()


def test_searches_of_a_small_space_see_all_of_it() -> None:
    space = SearchSpace(DIGITS, operators=(Operator.CONV3X3, Operator.CONV1X1), rates=(1,))
    encoding = Encoding(space)
    task = Task(
        encoding, lambda rows: (0.5 + rows.sum(axis=1) / 100, np.zeros(len(rows))), 0.0, 0.1, 1.0, steps_of(encoding)
    )
    for search in (random_search, local_search):
        curve = search(task, 1000, np.random.default_rng(0))
        assert curve[-1] == pytest.approx(0.57)
        assert (np.diff(curve) >= 0).all()


def test_the_surrogate_recovers_effects_and_knows_what_it_does_not_know() -> None:
    rng = np.random.default_rng(0)
    features = ChoiceFeatures(ENCODING)
    rows = rng.integers(ENCODING.sizes, size=(200, 7))
    weights = rng.normal(size=features(rows, 0.3).shape[1])
    targets = features(rows, 0.3) @ weights + rng.normal(0, 0.05, 200)
    predicted = cross_validated(features, rows, targets, sizes=ENCODING.sizes)
    assert np.corrcoef(predicted, targets)[0, 1] > 0.9
    few = LinearSurrogate.fit(features, rows[:20], targets[:20])
    draws = np.array([few.function(few.draw(rng), ENCODING.sizes)(rows) for _ in range(60)])
    assert draws[:, :20].std(axis=0).mean() < 0.6 * draws[:, 100:].std(axis=0).mean()
    assert np.mean(np.abs(draws[:, 100:].mean(axis=0) - targets[100:]) < 3 * draws[:, 100:].std(axis=0)) > 0.9
    value = few.function(few.mean, ENCODING.sizes)(rows[:20])
    assert np.corrcoef(value, targets[:20])[0, 1] > 0.9
