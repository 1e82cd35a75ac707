"""An exact Gaussian process over kernel matrices: it never sees what the points are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve_triangular

Floats = NDArray[np.float64]

#: noise variance / signal variance that are tried, and the log-normal prior over them
NOISE_RATIOS: Floats = np.geomspace(1e-4, 10.0, 31)
_PRIOR_RATIO, _PRIOR_SPREAD = 0.05, 2.0
#: the scale of standardised targets is known as well as after this many observations of variance 1
_PRIOR_WEIGHT = 2.0
#: hyperparameters are fitted on at most this many observations, evenly spaced: an eigendecomposition costs ten fits
_FIT_POINTS = 300


@dataclass(frozen=True)
class GaussianProcess:
    """A posterior; make it with `fit`. Points are known by their kernel values with the `n` observed points.

    Attributes:
        kernel: index of the kernel matrix that explains the targets best.
        noise: variance of a measurement, in squared units of the targets.
        signal: variance of the latent function where the kernel is 1.
        fitted: posterior mean at the observed points `[n]`, in units of the targets.
    """

    kernel: int
    noise: float
    signal: float
    fitted: Floats
    _offset: float
    _scale: float
    _cholesky: Floats  # n x n, lower
    _whitened: Floats  # targets, n

    @classmethod
    def fit(cls, grams: Floats | Sequence[Floats], targets: Floats) -> GaussianProcess:
        """The posterior given targets `[n]`, under the best of the kernel matrices (each `[n, n]`, PSD, diagonal 1).

        Noise, signal and the choice among `grams` maximise the marginal likelihood: the scale is integrated out under
        a scaled inverse chi-square prior, the ratio of noise to signal is searched on a grid. Duplicates, one
        observation and constant targets are fine. Raises ValueError on shapes that do not match, on no observation
        and on targets that are not finite.
        """
        grams = [grams] if isinstance(grams, np.ndarray) and grams.ndim == 2 else list(grams)
        kernel, ratio = likeliest(grams, targets)
        return cls.given(grams[kernel], targets, noise_ratio=ratio, kernel=kernel)

    @classmethod
    def given(
        cls,
        gram: Floats,
        targets: Floats,
        *,
        noise_ratio: float,
        known_ratio: Floats | float = 0.0,
        kernel: int = 0,
    ) -> GaussianProcess:
        """The posterior with a known ratio of noise to signal; the scale is still learned. Raises as `fit`.

        `known_ratio` `[n]`: of the noise that each target has beside that.
        """
        y, offset, scale = _standardised([gram], targets)
        noises = np.broadcast_to(np.asarray(noise_ratio + known_ratio, dtype=np.float64), y.shape)
        cholesky = _cholesky(np.asarray(gram, dtype=np.float64), noises)
        whitened = solve_triangular(cholesky, y, lower=True, check_finite=False)
        weights = solve_triangular(cholesky, whitened, lower=True, trans=1, check_finite=False)
        signal = (float(whitened @ whitened) + _PRIOR_WEIGHT) / (len(y) + _PRIOR_WEIGHT)
        return cls(
            kernel=kernel,
            noise=noise_ratio * signal * scale**2,
            signal=signal * scale**2,
            fitted=offset + scale * (y - noises * weights),  # gram @ weights, as (gram + noises) @ weights = y
            _offset=offset,
            _scale=scale,
            _cholesky=cholesky,
            _whitened=whitened,
        )

    def whiten(self, cross: Floats) -> Floats:
        """`[n, m]` of kernel values `cross` `[n, m]` of the observed points with others.

        Linear in the others: of those whose kernel values are sums, these are sums, too.
        """
        return np.asarray(solve_triangular(self._cholesky, cross, lower=True, check_finite=False))

    def predict_whitened(self, whitened: Floats, diagonal: Floats | float = 1.0) -> tuple[Floats, Floats]:
        """As `predict`, of points that were whitened: `[m, n]`, one row for each point."""
        variance = np.maximum(diagonal - np.einsum("mn,mn->m", whitened, whitened), 0.0)
        return self._mean(whitened), np.sqrt(self.signal * variance)

    def predict(self, cross: Floats, diagonal: Floats | float = 1.0) -> tuple[Floats, Floats]:
        """Posterior mean `[m]` and standard deviation `[m]` of the latent function.

        `cross` `[m, n]`: kernel with the observed points; `diagonal` `[m]`: kernel of each point with itself.
        """
        return self.predict_whitened(self.whiten(cross.T).T, diagonal)

    def joint(self, cross: Floats, own: Floats) -> tuple[Floats, Floats]:
        """Posterior mean `[m]` and covariance `[m, m]`; `own` `[m, m]` is the kernel among the points."""
        whitened = self.whiten(cross.T).T
        return self._mean(whitened), self.signal * (own - whitened @ whitened.T)

    def _mean(self, whitened: Floats) -> Floats:
        return np.asarray(self._offset + self._scale * (whitened @ self._whitened))


def likeliest(grams: Sequence[Floats], targets: Floats) -> tuple[int, float]:
    """Index of the kernel matrix, and ratio of noise to signal, that explain the targets best: see `fit`."""
    y, _, _ = _standardised(grams, targets)
    n = len(y)
    some = np.unique(np.linspace(0, n - 1, min(n, _FIT_POINTS)).round().astype(np.int64))
    profiles = [_log_evidence(gram[np.ix_(some, some)], y[some]) for gram in grams]
    kernel = int(np.argmax([profile.max() for profile in profiles]))
    return kernel, float(NOISE_RATIOS[profiles[kernel].argmax()])


def _standardised(grams: Sequence[Floats], targets: Floats) -> tuple[Floats, float, float]:
    """Targets of mean 0 and deviation 1, the mean, the deviation (1 if there is none). Raises ValueError."""
    targets = np.asarray(targets, dtype=np.float64)
    n = len(targets)
    if n == 0 or not grams or any(gram.shape != (n, n) for gram in grams):
        shapes = ", ".join(str(gram.shape) for gram in grams)
        raise ValueError(f"expected kernel matrices of {n} x {n} for {n} > 0 targets, got {shapes or 'none'}")
    if not np.isfinite(targets).all():
        raise ValueError(f"targets must be finite, got {targets[~np.isfinite(targets)][:3]}")
    offset, spread = float(targets.mean()), float(targets.std())
    scale = spread if spread > 1e-9 * max(1.0, abs(offset)) else 1.0
    return (targets - offset) / scale, offset, scale


def _log_evidence(gram: Floats, y: Floats) -> Floats:
    """Log marginal likelihood, up to a constant, at each of NOISE_RATIOS: one eigendecomposition serves them all."""
    values, vectors = np.linalg.eigh(gram)
    power = (vectors.T @ y) ** 2  # n
    spectrum = np.maximum(values, 0.0)[:, None] + NOISE_RATIOS  # n x ratios
    residual = (power[:, None] / spectrum).sum(axis=0)
    freedom = len(y) + _PRIOR_WEIGHT
    evidence = -0.5 * (np.log(spectrum).sum(axis=0) + freedom * np.log(_PRIOR_WEIGHT + residual))
    return np.asarray(evidence - 0.5 * (np.log(NOISE_RATIOS / _PRIOR_RATIO) / _PRIOR_SPREAD) ** 2)


def _cholesky(gram: Floats, noises: Floats) -> Floats:
    """Lower factor of a matrix plus a diagonal, which is PSD up to rounding: jitter grows until it succeeds."""
    for jitter in (0.0, 1e-10, 1e-8, 1e-6, 1e-4):
        matrix = np.array(gram, order="F")
        matrix[np.diag_indices(len(matrix))] += noises + jitter
        factor, failed = lapack.dpotrf(matrix, lower=1, clean=1, overwrite_a=1)
        if not failed:
            return np.asarray(factor)
    raise ValueError("the kernel matrix is not positive semi-definite")
