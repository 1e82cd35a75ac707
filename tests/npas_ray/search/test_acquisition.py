from __future__ import annotations

import numpy as np
import pytest

from npas_ray.search.acquisition import Floats, KrigingBeliever, best, choose_batch, log_expected_improvement


def test_expected_improvement_equals_its_integral() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=2_000_000)
    mean, std = np.array([0.5, 0.2, -1.0, 0.0]), np.array([0.1, 0.5, 0.7, 1.0])
    expected = [np.maximum(m + s * draws - 0.3, 0).mean() for m, s in zip(mean, std, strict=True)]
    np.testing.assert_allclose(np.exp(log_expected_improvement(mean, std, 0.3)), expected, rtol=0.02)


def test_hopeless_points_are_still_ordered() -> None:
    mean = np.array([-1e3, -100.0, -40.0, -8.0, -1.0, -0.99999, 0.0, 8.0])
    scores = log_expected_improvement(mean, np.ones(8), 0.0)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()


def test_certain_points() -> None:
    scores = log_expected_improvement(np.array([1.0, 0.0]), np.zeros(2), 0.5)
    assert scores[0] == pytest.approx(np.log(0.5))
    assert scores[1] < -1000


def test_best_takes_the_first_of_equals() -> None:
    assert best(np.array([1.0, 2.0, 2.0 + 1e-12])) == 1


def test_believing_equals_conditioning() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(5, 5))
    covariance = factor @ factor.T
    believer = KrigingBeliever(np.zeros(5), covariance, 0.1)
    believer.believe(1)
    believer.believe(3)
    some = np.ix_([1, 3], [1, 3])
    cross = covariance[:, [1, 3]]
    expected = covariance - cross @ np.linalg.solve(covariance[some] + 0.1 * np.eye(2), cross.T)
    np.testing.assert_allclose(believer.std, np.sqrt(np.diag(expected)), rtol=1e-9)


def test_a_batch_does_not_ask_the_same_twice() -> None:
    """Two pairs of near copies: the best two points are copies, the best batch is one of each pair."""
    covariance: Floats = np.kron(np.eye(2), np.full((2, 2), 0.999) + 0.001 * np.eye(2)).astype(np.float64)
    mean = np.array([0.30, 0.29, 0.2, 0.19])
    assert choose_batch(mean, covariance, noise=1e-3, incumbent=0.0, count=2) == [0, 2]
    assert sorted(choose_batch(mean, covariance, noise=1e-3, incumbent=0.0, count=9)) == [0, 1, 2, 3]


def test_what_is_under_way_is_not_asked_again() -> None:
    covariance = np.array([[1.0, 0.0, 0.999], [0.0, 1.0, 0.0], [0.999, 0.0, 1.0]])
    mean = np.array([0.3, 0.2, 0.3])
    assert choose_batch(mean[:2], covariance[:2, :2], noise=1e-3, incumbent=0.0, count=1) == [0]
    assert choose_batch(mean, covariance, noise=1e-3, incumbent=0.0, count=1, pending=1) == [1]


def test_weight_moves_the_choice() -> None:
    mean, covariance = np.array([0.3, 0.2]), np.eye(2)
    chosen = choose_batch(mean, covariance, noise=0.1, incumbent=0.0, count=1, log_weight=np.log(np.array([0.01, 1.0])))
    assert chosen == [1]
