"""The soft kernel, the latency surrogates and the moves of the npas policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from npas_ray.errors import SpaceError
from npas_ray.networks.backbone import DIGITS
from npas_ray.search.capacity import Capacity
from npas_ray.search.encoding import Encoding
from npas_ray.search.kernel_fit import KernelPosterior, fit_kernel
from npas_ray.search.latency_surrogate import CostFeatures, LearnedLatency, PredictedLatency
from npas_ray.search.moves import Moves
from npas_ray.search.reward import Objective
from npas_ray.search.soft_kernel import SoftKernel, SoftParameters
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)
ENCODING = Encoding(SPACE)
MOVES = Moves(ENCODING)
CAPACITY = Capacity(ENCODING, DIGITS)


def test_encoding_is_one_to_one() -> None:
    rng = np.random.default_rng(0)
    some = [SPACE.sample(rng) for _ in range(20)]
    assert [ENCODING.decode(row) for row in ENCODING.encode(some)] == some
    assert ENCODING.encode([]).shape == (0, 7)
    with pytest.raises(SpaceError, match="7 layers, got 1"):
        ENCODING.encode([Architecture((LayerChoice(Operator.SKIP),))])
    with pytest.raises(SpaceError, match="fc is no choice"):
        ENCODING.encode([Architecture((LayerChoice(Operator.FC),) * 7)])


def test_soft_kernel_equals_its_definition() -> None:
    parameters = SoftParameters(SoftParameters.prior(7).log + np.linspace(-0.3, 0.3, 15))
    a, b, c = parameters.distance

    def distance(x: LayerChoice, y: LayerChoice) -> float:
        differs = a * (x.operator != y.operator) + b * (x.scheme != y.scheme)
        return float(differs + c * abs(np.log(x.rate / y.rate)))

    rng = np.random.default_rng(0)
    some = [SPACE.sample(rng) for _ in range(6)]
    expected = np.empty((6, 6))
    traits = CAPACITY(ENCODING.encode(some))
    for i, x in enumerate(some):
        for j, y in enumerate(some):
            apart = np.array([[distance(u, v) for v in y.layers] for u in x.layers])
            expected[i, j] = (
                parameters.alpha @ np.exp(-np.diag(apart))
                + parameters.shared * np.exp(-apart).sum() / 7
                + parameters.trend * (traits[i] @ traits[j]) / 2
                + parameters.joint * np.exp(-parameters.stretch * np.diag(apart).mean())
            )
    kernel, rows = SoftKernel(ENCODING, CAPACITY), ENCODING.encode(some)
    gram = kernel.gram(parameters, rows, rows)
    np.testing.assert_allclose(gram, expected, rtol=1e-12)
    np.testing.assert_allclose(kernel.cross(parameters, rows).diagonal(rows), np.diag(gram), rtol=1e-12)
    assert np.linalg.eigvalsh(kernel.gram(parameters, *[MOVES.random(80, rng)] * 2)).min() > 0


def test_gradient_of_the_fit() -> None:
    rng = np.random.default_rng(0)
    prior = SoftParameters.prior(7)
    known = rng.uniform(0, 0.1, 30)
    kernel, rows = SoftKernel(ENCODING, CAPACITY), MOVES.random(30, rng)
    posterior = KernelPosterior(kernel, rows, rng.normal(size=30), known_noise=known)
    at = prior.log + rng.normal(0, 0.3, 15)
    np.testing.assert_allclose(posterior(at)[1], approx_fprime(at, lambda x: posterior(x)[0], 1e-6), atol=1e-4)


def test_fit_finds_the_layer_that_matters() -> None:
    rng = np.random.default_rng(0)
    rows = MOVES.random(80, rng)
    rates = np.array([np.log(choice.rate) for choice in ENCODING.choices[3]])
    y = -rates[rows[:, 3]] + rng.normal(0, 0.05, 80)
    kernel = SoftKernel(ENCODING, CAPACITY)
    parameters = fit_kernel(kernel, rows, (y - y.mean()) / y.std())
    assert parameters.alpha.argmax() == 3
    assert parameters.alpha[3] > 3 * np.delete(parameters.alpha, 3).max()
    assert fit_kernel(kernel, rows[:1], y[:1]).log.tolist() == SoftParameters.prior(7).log.tolist()


def _true_ms(rows: np.ndarray) -> np.ndarray:
    cost = {"3x3": 3.0, "1x1": 0.5, "3x3dw+1x1": 0.9, "1x1+3x3dw+1x1": 2.0, "skip": 0.0}
    gain = {Scheme.FILTER: 1.0, Scheme.PATTERN: 0.6}
    total = np.full(len(rows), 0.3)
    for layer, choices in enumerate(ENCODING.choices):
        table = [cost[c.operator] * (1 + layer % 3) / (1 + (c.rate - 1) * gain.get(c.scheme, 0.9)) for c in choices]
        total += np.array(table)[rows[:, layer]]
    return total


def test_latency_is_learned_from_few_measurements() -> None:
    rng = np.random.default_rng(0)
    train, test = MOVES.random(150, rng), MOVES.random(300, rng)
    truth = _true_ms(test)
    surrogate = LearnedLatency(Objective({"phone": float(np.median(truth))}), ENCODING, DIGITS)
    errors = []
    for until in (20, 150):
        for row in train[until // 150 * 20 : until]:
            surrogate.learn(row, {"phone": float(_true_ms(row[None])[0] * np.exp(rng.normal(0, 0.01)))})
        surrogate.refresh()
        belief = surrogate.predict("phone", test)
        assert belief is not None
        mean, std = belief
        errors.append(float(np.median(np.abs(mean / truth - 1))))
        assert 0.75 < np.mean(np.abs(mean - truth) < 2 * std) <= 1
    assert errors[0] < 0.2  # this phone's layers do not cost what their MACs say
    assert errors[1] < 0.04
    feasible = truth <= np.median(truth)
    probability = np.exp(surrogate.log_feasible(test))
    assert np.mean((probability > 0.5) == feasible) > 0.93


def test_learned_latency_does_not_depend_on_when_it_was_asked() -> None:
    rng = np.random.default_rng(0)
    rows, test = MOVES.random(40, rng), MOVES.random(5, rng)
    measured_ms = _true_ms(rows) * np.exp(rng.normal(0, 0.01, 40))
    live, replayed = (LearnedLatency(Objective({"phone": 5.0}), ENCODING, DIGITS) for _ in range(2))
    for row, latency_ms in zip(rows, measured_ms, strict=True):
        for surrogate in (live, replayed):
            surrogate.learn(row, {"phone": float(latency_ms)})
        live.refresh()
    replayed.refresh()
    said, again = live.predict("phone", test), replayed.predict("phone", test)
    assert said is not None and again is not None
    np.testing.assert_array_equal(said, again)


def test_features_of_latency_agree_with_their_products() -> None:
    rows, features = MOVES.random(6, np.random.default_rng(0)), CostFeatures(ENCODING, DIGITS)
    explicit = features(rows, 0.3)
    np.testing.assert_allclose(features.gram(rows, 0.3), explicit @ explicit.T, rtol=1e-10)
    np.testing.assert_allclose(features.diagonal(rows, 0.3), (explicit**2).sum(axis=1), rtol=1e-10)


@pytest.mark.parametrize("columns", [1, 3, 200])
def test_sums_of_a_row_are_the_same_in_any_company(columns: int) -> None:
    rng = np.random.default_rng(0)
    rows, table = MOVES.random(50, rng), rng.normal(size=(int(ENCODING.sizes.sum()), columns))
    starts = np.cumsum(ENCODING.sizes) - ENCODING.sizes
    together = ENCODING.sums(rows, table)
    np.testing.assert_allclose(together, table[rows + starts].sum(axis=1), rtol=1e-10)
    np.testing.assert_array_equal(together[[7]], ENCODING.sums(rows[[7]], table))


def test_nothing_is_known_of_latency_before_the_first_measurement() -> None:
    surrogate = LearnedLatency(Objective({"phone": 1.0}), ENCODING, DIGITS)
    surrogate.refresh()
    rows = MOVES.random(3, np.random.default_rng(0))
    assert surrogate.predict("phone", rows) is None
    assert surrogate.log_feasible(rows).tolist() == [0, 0, 0]
    assert np.isnan(surrogate.load(rows)).all()


def test_predictor_is_corrected_and_asked_once() -> None:
    asked: list[Architecture] = []

    def predictor(architectures: Sequence[Architecture]) -> dict[str, np.ndarray]:
        asked.extend(architectures)
        return {"phone": _true_ms(ENCODING.encode(architectures)) / 1.3, "other": np.ones(len(architectures))}

    surrogate = PredictedLatency(Objective({"phone": 5.0}), ENCODING, predictor)
    rows = MOVES.random(60, np.random.default_rng(0))
    for row in rows:
        surrogate.learn(row, {"phone": float(_true_ms(row[None])[0])})
    surrogate.refresh()
    belief = surrogate.predict("phone", rows)
    assert belief is not None
    np.testing.assert_allclose(belief[0], _true_ms(rows), rtol=0.02)
    assert np.all(belief[1] < 0.05 * belief[0])
    assert len(asked) == len(set(asked)) == 60


@pytest.mark.parametrize("answer", [{}, {"phone": np.ones(1)}, {"phone": np.array([1.0, np.nan])}])
def test_predictor_must_answer(answer: dict[str, np.ndarray]) -> None:
    surrogate = PredictedLatency(Objective({"phone": 5.0}), ENCODING, lambda _: answer)
    with pytest.raises(ValueError, match="must give 2 positive numbers of ms for 'phone'"):
        surrogate.predict("phone", MOVES.random(2, np.random.default_rng(0)))


def test_moves_stay_in_the_space_and_near() -> None:
    rng = np.random.default_rng(0)
    rows = MOVES.random(500, rng)
    mutated = MOVES.mutate(rows, rng)
    for some in (rows, mutated, MOVES.cross(rows, mutated, rng)):
        assert all(ENCODING.decode(row) in SPACE for row in some)
    changed = (rows != mutated).sum(axis=1)
    assert changed.max() <= 7
    assert 0.5 < np.mean(changed == 1) < 0.7
    crossed = MOVES.cross(rows, rows[::-1], rng)
    assert ((crossed == rows) | (crossed == rows[::-1])).all()


def test_moves_where_there_is_nowhere_to_go() -> None:
    encoding = Encoding(SearchSpace(DIGITS, operators=[Operator.CONV3X3], rates=[1]))
    moves = Moves(encoding)
    rng = np.random.default_rng(0)
    assert moves.mutate(moves.random(5, rng), rng).tolist() == [[0] * 7] * 5
