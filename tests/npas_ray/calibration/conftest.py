"""Calibrations without a device: latencies by a law of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from device_farm.calibration.breakeven import Point
from device_farm.calibration.file import Calibration, Network
from device_farm.calibration.predictor import Observation
from device_farm.calibration.steps import StepShape
from device_farm.calibration.validation import validate
from device_farm.compiler import host_target
from npas_ray.calibration.design import default_count, design
from npas_ray.calibration.pieces import Pieces
from npas_ray.calibration.store import identity_of
from npas_ray.config import SearchConfig
from npas_ray.runs.setting import backbone_of, block_height_of, make_space
from npas_ray.space.choices import Architecture

SMALL = {"operators": ["3x3", "1x1", "skip"], "schemes": ["block-punched", "block-based"], "rates": [1, 2, 5]}


def true_ms(step: StepShape) -> float:
    """Winograd takes as long as its transformed weights are many: on 16x16 pixels, a third of the direct way."""
    return 1e-4 + (1e-7 * step.weight_bytes if "winograd" in step.kind else 2e-8 * step.kept_macs)


def _latency_ms(config: SearchConfig, architecture: Architecture) -> float:
    pieces = Pieces(backbone_of(config), host_target(), block_height_of(config))
    return 5e-4 + sum(true_ms(step) for step in pieces.candidate(architecture))


@pytest.fixture(scope="session")
def latency_ms() -> Callable[[SearchConfig, Architecture], float]:
    """What a candidate takes by our law, in ms."""
    return _latency_ms


@pytest.fixture(scope="session")
def invent() -> Callable[..., Calibration]:
    """`invent(config, points)`: a calibration of the configuration's space by our law, with 0.3 % of noise."""

    def make(config: SearchConfig, points: Sequence[Point] = ()) -> Calibration:
        space, rng = make_space(config), np.random.default_rng(0)
        pieces = Pieces(backbone_of(config), host_target(), block_height_of(config))
        networks = []
        for architecture in design(space, default_count(space), seed=0):
            steps = tuple(pieces.candidate(architecture))
            noise = float(rng.normal(1, 0.003))
            times = tuple(true_ms(step) * float(rng.normal(1, 0.04)) + 2e-5 for step in steps)
            observation = Observation(steps, times, _latency_ms(config, architecture) * noise, 0.003)
            networks.append(Network(tuple(architecture.to_json()), observation))
        stretch = validate([network.observation for network in networks]).stretch
        return Calibration(identity_of(config, "local"), tuple(networks), tuple(points), tuple(stretch.tolist()))

    return make


@pytest.fixture
def small() -> SearchConfig:
    return SearchConfig.from_json({"name": "small", "space": SMALL})
