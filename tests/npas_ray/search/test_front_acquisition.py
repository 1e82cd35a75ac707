from __future__ import annotations

import numpy as np
import pytest

from npas_ray.networks.backbone import DIGITS
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.front_acquisition import CostBeliefs, Floats, FrontAcquisition, spread, spread_start
from npas_ray.search.hypervolume import hypervolume
from npas_ray.search.latency_surrogate import PredictedLatency
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)
ENCODING = Encoding(SPACE)


def _share(architecture: Architecture) -> float:
    return (int(architecture.key, 16) % 1000) / 1000 + 1e-3


def acquisition(axes: int, known: int, *, seed: int = 0) -> tuple[FrontAcquisition, Floats, IntArray, CostBeliefs]:
    """Of random results, costs (shares of the reference) that a predictor knows well; their points; new rows."""
    rng = np.random.default_rng(seed)
    models = [f"m{i}" for i in range(axes)]
    names = tuple(f"latency:{model}" for model in models)
    objective = Objective(mode=Mode.FRONT, axes=names, reference=dict.fromkeys(names, 2.0))

    def predict(architectures: object) -> dict[str, Floats]:
        shares = np.array([_share(a) for a in architectures])  # type: ignore[attr-defined]
        return {model: 2.0 * (shares + i) % 2.0 + 1e-3 for i, model in enumerate(models)}

    latency = PredictedLatency(objective, ENCODING, predict, error=1e-4)
    latency.refresh()
    beliefs = CostBeliefs(objective, ENCODING, latency)
    rows = rng.integers(ENCODING.sizes, size=(known + 20, ENCODING.layers))
    shares, accuracies = beliefs(rows[:known]).mean, rng.random(known)
    front = FrontAcquisition(
        beliefs, accuracies=accuracies, shares=shares, feasible=np.ones(known, bool), rng=np.random.default_rng(1)
    )
    return front, np.column_stack([1 - accuracies, shares]), rows[known:], beliefs


@pytest.mark.parametrize(("axes", "within"), [(1, 0.012), (2, 0.03)])
def test_a_sure_candidates_score_is_what_the_hypervolume_gains(axes: int, within: float) -> None:
    front, points, rows, beliefs = acquisition(axes, known=8)
    corner = (1.0,) * (axes + 1)
    before = hypervolume(points, corner)
    accuracy = np.linspace(0.05, 0.99, len(rows))
    scores = np.exp(front.score(rows, accuracy, np.full(len(rows), 1e-6)))
    for row, value, score in zip(rows, accuracy, scores, strict=True):
        point = np.append(1 - value, beliefs(row[None]).mean[0])
        gain = hypervolume(np.vstack([points, point]), corner) - before
        assert score == pytest.approx(gain, abs=within)


def test_the_expected_gain_is_the_mean_gain() -> None:
    front, points, rows, beliefs = acquisition(1, known=5)
    rng, std = np.random.default_rng(0), 0.2
    before = hypervolume(points, (1.0, 1.0))
    for row in rows[:4]:
        share = beliefs(row[None]).mean[0]
        drawn = rng.normal(0.6, std, 2000)
        gains = [hypervolume(np.vstack([points, [[1 - a, share[0]]]]), (1.0, 1.0)) - before for a in drawn]
        score = float(np.exp(front.score(row[None], np.array([0.6]), np.array([std])))[0])
        assert score == pytest.approx(np.mean(gains), abs=0.012)


def test_a_batch_spreads_over_the_front() -> None:
    """What is believed is worth nothing a second time."""
    front, _, rows, beliefs = acquisition(1, known=1)
    shares = beliefs(rows).mean[:, 0]
    cheap, dear = rows[shares.argmin()], rows[shares.argmax()]
    both = np.stack([cheap, cheap, dear, dear])
    mean = np.array([0.97, 0.97, 0.999, 0.999])
    chosen = front.choose(both, mean, np.eye(4) * 1e-10, noise=1e-10, count=2)
    assert {index // 2 for index in chosen} == {0, 1}


def test_those_under_way_are_believed_and_never_chosen() -> None:
    front, _, rows, _ = acquisition(1, known=3)
    both = np.concatenate([rows[:5], rows[:1]])  # the last one is under way, and the same as the first
    mean = np.array([0.9, 0.2, 0.2, 0.2, 0.2, 0.9])
    chosen = front.choose(both, mean, np.eye(6) * 1e-8, noise=1e-8, count=5, pending=1)
    assert sorted(chosen) == [0, 1, 2, 3, 4]
    assert chosen[-1] == 0 or front.heights.max() >= 0.9


def test_the_elite_is_the_front_and_what_is_behind_it() -> None:
    front, points, _, _ = acquisition(1, known=30)
    elite = front.elite(10)
    on_front = [i for i, p in enumerate(points) if not any((q <= p).all() and (q != p).any() for q in points)]
    assert set(on_front) <= set(elite.tolist())
    assert len(elite) >= 10
    assert len(set(elite.tolist())) == len(elite)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_targets_are_spread_evenly(axes: int) -> None:
    targets = spread(axes, np.random.default_rng(3))
    assert targets.shape[1] == axes
    assert ((targets >= 0) & (targets <= 1)).all()
    assert targets.mean(axis=0) == pytest.approx(np.full(axes, 0.5), abs=0.02)
    assert np.prod(targets, axis=1).mean() == pytest.approx(0.5**axes, abs=0.02)


def test_a_start_stands_along_the_way_to_the_reference() -> None:
    shares = np.random.default_rng(0).random((100, 1)) * 2
    order = spread_start(shares, 5)
    assert sorted(order.tolist()) == list(range(100))
    assert (np.diff(shares[order[:5], 0]) < 0).all()
    assert shares[order[0], 0] > 0.9
    assert (shares[order[:5], 0] <= 1).all()
    assert sorted(spread_start(shares + 1, 3).tolist()) == list(range(100))  # nothing is within
