from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_farm.calibration.predictor import Predictor, fit
from device_farm.calibration.steps import StepShape
from device_farm.calibration.validation import validate
from device_farm.errors import CalibrationError

MakeWorld = Callable[..., Any]


def predict_one(predictor: Predictor, steps: list[StepShape]) -> float:
    return float(predictor.predict([[predictor.part(steps)]]).mean_ms[0])


def test_networks_of_known_steps_are_known_better_than_their_profiles(make_world: MakeWorld) -> None:
    world = make_world()
    predictor = fit([world.observe(world.network()) for _ in range(120)])
    unseen = [world.network() for _ in range(200)]
    true_ms = np.array([world.latency_ms(steps) for steps in unseen])
    answer = predictor.predict([[predictor.part(steps)] for steps in unseen])
    errors = np.abs(answer.mean_ms / true_ms - 1)
    assert np.median(errors) < 0.01  # one profile is wrong by 5 % of each step
    assert errors.max() < 0.05
    assert answer.unseen.max() == 0


def test_steps_that_were_never_seen_are_modelled_by_their_kind(make_world: MakeWorld) -> None:
    world = make_world()
    seen = [step for number, step in enumerate(world.steps) if number % 4]
    new = [step for number, step in enumerate(world.steps) if number % 4 == 0]
    predictor = fit([world.observe(world.network(seen)) for _ in range(120)])
    for step in new:
        part = predictor.part([step])
        assert predictor.time_ms([part]) == pytest.approx(world.true_ms[step.key], rel=0.25)
        assert part.unseen_var > 0
    known, unknown = (predictor.predict([[predictor.part(world.network(steps))]]) for steps in (seen, new))
    assert unknown.unseen[0] > 0.5 > known.unseen[0]
    assert unknown.std_ms[0] / unknown.mean_ms[0] > known.std_ms[0] / known.mean_ms[0]


def test_a_kind_that_was_never_seen_is_not_free(make_world: MakeWorld) -> None:
    world = make_world()
    predictor = fit([world.observe(world.network()) for _ in range(60)])
    stranger = replace(world.steps[5], key="stranger", kind="stranger")
    assert predictor.time_ms([predictor.part([stranger])]) > 1e-4


def test_the_interval_holds_what_it_promises(make_world: MakeWorld) -> None:
    covered = defaultdict(list)
    for seed in range(6):
        world = make_world(seed=seed)
        observations = [world.observe(world.network(), noise=0.01) for _ in range(100)]
        predictor = fit(observations, stretch=validate(observations).stretch.tolist())
        asked = [world.observe(world.network(), noise=0.01) for _ in range(60)]
        measured = np.array([o.latency_ms for o in asked])
        for confidence in (0.8, 0.9, 0.95):
            answer = predictor.predict([[predictor.part(o.steps)] for o in asked], confidence=confidence)
            covered[confidence].append(((measured >= answer.low_ms) & (measured <= answer.high_ms)).mean())
    for confidence, shares in covered.items():
        assert np.mean(shares) == pytest.approx(confidence, abs=0.06)


def test_measurements_of_a_busy_core_count_for_little(make_world: MakeWorld) -> None:
    world = make_world()
    quiet = [world.observe(world.network()) for _ in range(80)]
    shared = [world.observe(world.network(), quiet=False) for _ in range(20)]
    networks = [world.network() for _ in range(100)]

    def errors(predictor: Predictor) -> list[float]:
        return [predict_one(predictor, network) / world.latency_ms(network) - 1 for network in networks]

    assert abs(float(np.mean(errors(fit([*quiet, *shared]))))) < 0.01
    # with few quiet ones, what is known of the others is how they differ among each other
    few = quiet[:15]
    more = [world.observe(world.network(), quiet=False) for _ in range(80)]
    assert np.std(errors(fit([*few, *more]))) < 0.8 * np.std(errors(fit(few)))


def test_where_no_core_was_ever_quiet_there_is_a_predictor_all_the_same(make_world: MakeWorld) -> None:
    world = make_world()
    observations = [world.observe(world.network(), quiet=False) for _ in range(60)]
    predictor = fit(observations)
    network = world.network()
    assert predict_one(predictor, network) == pytest.approx(1.2 * world.latency_ms(network), rel=0.1)
    assert len(validate(observations).measured_ms) == 0


def test_how_a_network_is_cut_does_not_matter(make_world: MakeWorld) -> None:
    world = make_world()
    predictor = fit([world.observe(world.network()) for _ in range(60)])
    network = world.network()
    cut = [predictor.part(network[:5]), predictor.part(network[5:7]), predictor.part(network[7:])]
    many = predictor.predict([[predictor.part(network)]] * 300 + [cut])
    assert many.mean_ms == pytest.approx(np.full(301, predict_one(predictor, network)))
    assert many.std_ms == pytest.approx(np.full(301, many.std_ms[0]))


def test_a_difference_knows_its_own_error(make_world: MakeWorld) -> None:
    world = make_world()
    predictor = fit([world.observe(world.network()) for _ in range(120)])
    z = []
    for a, b in zip(world.steps[:-1], world.steps[1:], strict=True):
        difference, std = predictor.difference([predictor.part([a])], [predictor.part([b])])
        z.append((difference - (world.true_ms[a.key] - world.true_ms[b.key])) / std)
    assert 0.3 < np.std(z) < 1.7
    assert predictor.difference([predictor.part([a])], [predictor.part([a])])[0] == 0


def test_the_same_measurements_give_the_same_predictor(make_world: MakeWorld) -> None:
    world = make_world()
    observations = [world.observe(world.network()) for _ in range(40)]
    network = world.network()
    assert predict_one(fit(observations), network) == predict_one(fit(observations), network)


def test_validation_never_uses_what_it_predicts(make_world: MakeWorld) -> None:
    """A network of steps of its own: predicted by its kind's model, not by its own profile."""
    world = make_world()
    odd = world.steps[7]
    lonely = replace(odd, key="lonely")
    world.true_ms["lonely"] = 3 * world.true_ms[odd.key]
    rest = [world.observe(world.network()) for _ in range(60)]
    network = [lonely] * 12
    result = validate([*rest, world.observe(network)])
    where = int(np.argmax(result.relative_errors))
    assert result.measured_ms[where] == pytest.approx(world.latency_ms(network), rel=0.02)
    assert result.relative_errors[where] > 0.4


def test_few_networks_promise_little(make_world: MakeWorld) -> None:
    """Ten errors cannot vouch for 95 %; a hundred can."""
    world = make_world()
    observations = [world.observe(world.network()) for _ in range(30)]
    widths = []
    for stretch in ([], [0.5] * 10, [0.5] * 100):
        predictor = fit(observations, stretch=stretch)
        answer = predictor.predict([[predictor.part(observations[0].steps)]])
        widths.append(float((answer.high_ms - answer.mean_ms)[0] / answer.std_ms[0]))
    assert widths == pytest.approx([4.0, 4.0, 0.5])


def test_too_few_networks_and_senseless_confidence(make_world: MakeWorld) -> None:
    world = make_world()
    with pytest.raises(CalibrationError, match="at least 2 measured networks, got 1"):
        fit([world.observe(world.network())])
    predictor = fit([world.observe(world.network()) for _ in range(5)])
    for confidence in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            predictor.predict([], confidence=confidence)
    assert len(predictor.predict([]).mean_ms) == 0
