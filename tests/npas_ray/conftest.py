"""Runs as a search leaves them, made through the real journal with invented results."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from npas_ray.config import SearchConfig
from npas_ray.journal import Journal
from npas_ray.networks.backbone import DIGITS
from npas_ray.search.policy import Status
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.search_space import SearchSpace

SPACE = SearchSpace(DIGITS)
MakeRun = Callable[..., Path]
NOBODY = 65534


@contextmanager
def _ordinary_user() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """`with ordinary_user():` files are refused as they are to a user who is not root."""
    return _ordinary_user


def measurement(latency_ms: float, *, model: str, emulated: bool = False, half_width: float = 0.01) -> dict[str, Any]:
    """A measurement as the farm writes it."""
    return {
        "artifact_key": "a" * 16,
        "device": {
            "serial": f"{model}-0",
            "model": model,
            "target": "x86-64-v4",
            "emulated": emulated,
            "details": {"cpu": "Intel(R) Xeon(R)", "cores": 4, "features": ["avx2", "avx512f"]},
        },
        "protocol_key": "0.05-0.2-20-20000-0.05",
        "latency_ms": latency_ms,
        "ci_low_ms": latency_ms * (1 - half_width),
        "ci_high_ms": latency_ms * (1 + half_width),
        "samples": 2412,
        "percentiles_ms": {"p1": latency_ms * 0.97, "p50": latency_ms, "p99": latency_ms * 1.4},
        "max_relative_error": 3.1e-6,
        "steps_ms": [[f"block{i}", latency_ms / 8] for i in range(7)],
        "conditions": {"statistic": "10th percentile", "affinity": [3], "load_1min": 0.42, "frequency_mhz": None},
        "macs": 4_210_000,
        "kept_macs": round(4_210_000 * latency_ms / 0.1),
    }


def random_architecture(rng: random.Random) -> Architecture:
    """Of the space of the examples."""
    fitting = {
        Operator.CONV1X1: (Scheme.FILTER, Scheme.BLOCK_BASED),
        Operator.CONV3X3: (Scheme.FILTER, Scheme.PATTERN, Scheme.BLOCK_PUNCHED),
        Operator.DW3X3_CONV1X1: (Scheme.FILTER, Scheme.BLOCK_BASED),
        Operator.CONV1X1_DW3X3_CONV1X1: (Scheme.FILTER, Scheme.BLOCK_BASED),
    }

    def choice(layer: int) -> LayerChoice:
        operator = rng.choice([*fitting, Operator.SKIP])
        rate = rng.choice((1.0, 2.0, 2.5, 3.0, 5.0, 7.0, 10.0))
        if operator is Operator.SKIP and LayerChoice(operator) not in SPACE.choices(layer):
            operator = Operator.CONV1X1
        if operator is Operator.SKIP or rate == 1:
            return LayerChoice(operator)
        scheme = rng.choice(fitting[operator])
        return LayerChoice(operator, scheme, max(rate, 2.5) if scheme is Scheme.PATTERN else rate)

    return Architecture(tuple(choice(layer) for layer in range(SPACE.layers)))


def build_run(
    path: Path,
    *,
    candidates: int = 48,
    wanted: int = 48,
    model: str = "local",
    emulated: bool = False,
    budget_ms: float | None = 0.08,
    reason: str = "RunnerFailed: the runner ended with signal 4",
    config: dict[str, Any] | None = None,
    seed: int = 0,
    ladder: bool = False,
) -> Path:
    """A run of invented candidates: some over budget, some failed, the best two trained with a second seed.

    With a ladder some were stopped after no epoch.
    """
    rng = random.Random(seed)
    path.mkdir(parents=True, exist_ok=True)
    default = SearchConfig.from_json({"name": "example", "search": {"candidates": wanted}}).to_json()
    default["objective"]["budgets_ms"] = {} if budget_ms is None else {model: budget_ms}
    with Journal.create(path / "journal.sqlite", config=default if config is None else config) as journal:
        journal.note("session", {"config": default, "pid": 4242})
        journal.note("teacher", {"accuracy": 0.9412, "epochs": 30, "wall_s": 21.4})
        trained: list[tuple[float, str]] = []
        for index in range(candidates):
            architecture = random_architecture(rng)
            journal.propose(architecture)
            key = architecture.key
            if index % 17 == 11:
                journal.conclude(key, status=Status.FAILED, reason=reason)
                continue
            latency_ms = 0.022 + 0.11 * rng.random() ** 1.4 * (1 - 0.4 * index / 48)
            journal.measured(
                key, model=model, measurement=measurement(latency_ms, model=model, emulated=emulated, half_width=0.02)
            )
            if budget_ms is not None and latency_ms > budget_ms:
                over = f"{latency_ms:.4g} ms on {model}, budget {budget_ms:g} ms"
                journal.conclude(key, status=Status.OVER_BUDGET, reason=over)
                continue
            accuracy = 0.93 - 0.35 * math.exp(-latency_ms / 0.03) - 0.12 * rng.random() + 0.03 * index / 48
            if ladder:
                journal.trained(key, evaluation={"accuracy": accuracy / 3, "seed": 0, "epochs": 0, "wall_s": 0.2})
                if accuracy < 0.75:
                    journal.conclude(key, status=Status.STOPPED, reason="others were better")
                    continue
            journal.trained(key, evaluation={"accuracy": accuracy, "seed": 0, "epochs": 2, "wall_s": 1.3})
            trained.append((accuracy, key))
            journal.conclude(key, status=Status.DONE)
        for accuracy, key in sorted(trained, reverse=True)[:2]:
            journal.trained(key, evaluation={"accuracy": accuracy - 0.011, "seed": 1, "epochs": 2, "wall_s": 1.3})
    return path


@pytest.fixture(scope="session")
def built_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Every kind of run built once: a journal waits for the disk at each of its hundreds of writes."""
    built: dict[str, Path] = {}

    def build(**options: Any) -> Path:
        kind = repr(sorted(options.items()))
        if kind not in built:
            built[kind] = build_run(tmp_path_factory.mktemp("run"), **options)
        return built[kind]

    return build


@pytest.fixture
def make_run(tmp_path: Path, built_runs: Callable[..., Path]) -> MakeRun:
    """`make_run(name, **options)` makes a run in the test's directory; see build_run."""

    def make(name: str = "example", **options: Any) -> Path:
        return Path(shutil.copytree(built_runs(**options), tmp_path / name, dirs_exist_ok=True))

    return make
