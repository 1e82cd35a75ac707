"""A world of steps whose true times are known: what a predictor has to find out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from device_farm.calibration.predictor import Observation
from device_farm.calibration.steps import StepShape

OVERHEAD_MS = 0.001


class World:
    """`kinds` x `sizes` different steps; a network is 12 of them."""

    def __init__(self, *, seed: int = 0, kinds: int = 3, sizes: int = 20) -> None:
        self.rng = np.random.default_rng(seed)
        self.steps: list[StepShape] = []
        self.true_ms: dict[str, float] = {}
        for kind in range(kinds):
            for size in range(sizes):
                macs = 10_000 * (size + 1)
                key = f"{kind}-{size}"
                self.steps.append(StepShape(key, key, f"kind{kind}", macs, 1, 4 * macs // 16, 4096))
                law = 2e-4 + (1 + kind) * 2e-8 * macs
                self.true_ms[key] = law * float(self.rng.uniform(0.9, 1.1))  # no law holds exactly

    def network(self, among: Sequence[StepShape] | None = None) -> list[StepShape]:
        steps = self.steps if among is None else among
        return [steps[int(i)] for i in self.rng.integers(len(steps), size=12)]

    def latency_ms(self, steps: Sequence[StepShape]) -> float:
        return OVERHEAD_MS + sum(self.true_ms[step.key] for step in steps)

    def observe(self, steps: Sequence[StepShape], *, noise: float = 0.003, quiet: bool = True) -> Observation:
        """A measurement whose latency is good and whose profile is rough."""
        slow = 1.0 if quiet else 1.2
        profile = [self.true_ms[s.key] * slow * float(self.rng.normal(1, 0.05)) + 2e-5 for s in steps]
        latency = self.latency_ms(steps) * slow * float(self.rng.normal(1, noise))
        return Observation(tuple(steps), tuple(profile), latency, noise, quiet)


@pytest.fixture
def make_world() -> Callable[..., World]:
    return World
