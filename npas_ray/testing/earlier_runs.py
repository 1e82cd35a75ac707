"""Runs that a search may begin with, for tests: their configuration, their journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from npas_ray.config import SearchConfig
from npas_ray.journal import Journal
from npas_ray.runs.setting import DENSE, make_space
from npas_ray.search.policy import Status

DEVICE = {
    "serial": "s1",
    "model": "local",
    "target": "x86_64-avx512",
    "emulated": False,
    "details": {"processor": "AMD EPYC", "cores": 4, "allowed_cores": [0, 1]},
}


def dense_ms(latency_ms: float = 0.1, *, key: str = "k" * 16, **device: Any) -> dict[str, Any]:
    """A measurement of the dense network on the device of these runs, or on one that differs."""
    return {"artifact_key": key, "device": DEVICE | device, "latency_ms": latency_ms}


def config_with(*sources: dict[str, Any], **sections: Any) -> SearchConfig:
    """A configuration that begins with these sources."""
    search = {"warm_start": list(sources)} | sections.pop("search", {})
    return SearchConfig.from_json({"name": "w", "search": search, "training": {"epochs": 2}} | sections)


def make_earlier_run(path: Path) -> None:
    """A run on the digits space that measured the dense network: 38 done (2 epochs), 7 over budget, 3 failed."""
    rng = np.random.default_rng(0)
    config = config_with()
    space = make_space(config)
    with Journal.create(path / "journal.sqlite", config=config.to_json()) as journal:
        journal.note(DENSE, {"model": "local", "measurement": dense_ms()})
        for index in range(48):
            architecture = space.sample(rng)
            journal.propose(architecture)
            if index % 16 == 3:
                journal.conclude(architecture.key, status=Status.FAILED, reason="it was poison")
                continue
            latency_ms = float(0.11 - 0.04 * index / 48 if index % 5 == 1 else 0.03 + 0.05 * rng.random())
            is_over = latency_ms > 0.081
            measured = {"latency_ms": latency_ms, "ci_low_ms": 0.99 * latency_ms, "ci_high_ms": 1.01 * latency_ms}
            journal.measured(architecture.key, model="local", measurement=measured)
            if is_over:
                journal.conclude(architecture.key, status=Status.OVER_BUDGET)
                continue
            accuracy = float(0.5 + 3 * latency_ms + 0.1 * rng.random())
            journal.trained(architecture.key, evaluation={"accuracy": accuracy, "seed": 0, "epochs": 2})
            journal.conclude(architecture.key, status=Status.DONE)
