from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from npas_ray.search.gaussian_process import GaussianProcess

Floats = NDArray[np.float64]


def _gram(x: Floats, z: Floats, length: float = 1.0) -> Floats:
    return np.exp(-0.5 * ((x[:, None] - z) / length) ** 2)


def test_posterior_equals_the_textbook() -> None:
    rng = np.random.default_rng(0)
    x, z = rng.uniform(0, 5, 12), rng.uniform(0, 5, 4)
    y = 3 + np.sin(x) * 0.1 + rng.normal(0, 0.01, 12)
    process = GaussianProcess.fit(_gram(x, x), y)
    covariance = process.signal * _gram(x, x) + process.noise * np.eye(12)
    cross = process.signal * _gram(z, x)
    mean = y.mean() + cross @ np.linalg.solve(covariance, y - y.mean())
    joint = process.signal * _gram(z, z) - cross @ np.linalg.solve(covariance, cross.T)
    got_mean, got_std = process.predict(_gram(z, x))
    np.testing.assert_allclose(got_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(got_std, np.sqrt(np.diag(joint)), rtol=1e-4)
    np.testing.assert_allclose(process.joint(_gram(z, x), _gram(z, z))[1], joint, atol=1e-9)
    np.testing.assert_allclose(process.fitted, process.predict(_gram(x, x))[0], rtol=1e-12)


def test_noise_and_kernel_are_found() -> None:
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(0, 20, 150))
    truth = _gram(x, x, 1.0)
    for noise in (0.001, 0.1):
        y = 2.0 * multivariate_normal.rvs(cov=truth + noise * np.eye(150), random_state=3)
        process = GaussianProcess.fit([_gram(x, x, 0.05), truth, _gram(x, x, 20.0)], y)
        assert process.kernel == 1
        assert 0.3 < process.noise / (4 * noise) < 3


def test_noise_free_targets_are_interpolated_and_uncertainty_grows_away_from_them() -> None:
    x = np.linspace(0, 5, 11)
    process = GaussianProcess.fit(_gram(x, x), np.sin(x))
    np.testing.assert_allclose(process.fitted, np.sin(x), atol=0.01)
    _, std = process.predict(_gram(np.array([2.5, 8.0, 30.0]), x))
    assert std[0] < 0.05 < std[1] < std[2]


@pytest.mark.parametrize("y", [[0.7], [0.7, 0.7, 0.7], [0.0, 0.0]])
def test_one_observation_and_constant_targets(y: list[float]) -> None:
    x = np.arange(float(len(y)))
    process = GaussianProcess.fit(_gram(x, x), np.array(y))
    mean, std = process.predict(_gram(np.array([0.0, 50.0]), x))
    np.testing.assert_allclose(mean, y[0], atol=1e-9)
    assert np.isfinite(std).all()
    assert std[1] > std[0] > 0


def test_duplicates_are_averaged() -> None:
    x = np.array([0.0] * 20 + [10.0] * 20)
    y = np.array([0.4, 0.6] * 10 + [1.4, 1.6] * 10)
    process = GaussianProcess.fit(_gram(x, x), y)
    mean, std = process.predict(_gram(np.array([0.0, 10.0]), x))
    np.testing.assert_allclose(mean, [0.5, 1.5], atol=0.05)
    assert (std < 0.1).all()


def test_more_observations_than_the_hyperparameters_are_fitted_on() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 60, 700)
    y = np.sin(x) + rng.normal(0, 0.1, 700)
    mean, _ = GaussianProcess.fit(_gram(x, x), y).predict(_gram(np.arange(60.0), x))
    assert np.abs(mean - np.sin(np.arange(60.0))).max() < 0.25


def test_refuses_what_it_cannot_learn_from() -> None:
    with pytest.raises(ValueError, match=r"expected kernel matrices of 2 x 2 .* got \(3, 3\)"):
        GaussianProcess.fit(np.eye(3), np.zeros(2))
    with pytest.raises(ValueError, match="0 > 0 targets"):
        GaussianProcess.fit(np.empty((0, 0)), np.empty(0))
    with pytest.raises(ValueError, match="finite"):
        GaussianProcess.fit(np.eye(2), np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="positive semi-definite"):
        GaussianProcess.fit(np.array([[1.0, 30.0], [30.0, 1.0]]), np.array([0.0, 1.0]))
