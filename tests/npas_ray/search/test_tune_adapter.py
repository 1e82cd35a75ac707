"""A policy that thinks does not hold up Tune: trials that run go on, and their results are taken meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from npas_ray.networks.backbone import DIGITS
from npas_ray.runs.conductor import Issued
from npas_ray.search.tune_adapter import ConductedSearcher
from npas_ray.space.search_space import SearchSpace

#: a policy that blocked Tune would wait for a result that Tune cannot take: the test would last until this
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Thinking:
    """A conductor whose policy thinks about its second candidate until the first one's results are there."""

    def __init__(self) -> None:
        self._issued = 0
        self._heard = threading.Event()
        self.waited_in_vain = False

    def issue(self) -> Issued | None:
        self._issued += 1
        if self._issued == 2 and not self._heard.wait(PATIENCE_S):
            self.waited_in_vain = True
        architecture = next(iter(SearchSpace(DIGITS)))
        return Issued(self._issued, f"key-{self._issued}", architecture) if self._issued <= 2 else None

    def hear(self) -> None:
        self._heard.set()

    def vain(self) -> bool:
        return self.waited_in_vain


def test_results_are_taken_while_the_policy_thinks(cluster: None, tmp_path: Path) -> None:
    conductor: Any = ray.remote(Thinking).options(num_cpus=0, max_concurrency=4).remote()
    results: list[dict[str, Any]] = []

    def on_result(result: dict[str, Any]) -> None:
        results.append(result)
        conductor.hear.remote()  # of a whole trial that ran, reported and ended meanwhile

    def trial(config: dict[str, Any]) -> None:
        for step in range(3):
            tune.report({"reward": float(step), "key": config["key"]})

    searcher = ConductedSearcher(conductor, max_live=2, metric="reward", on_result=on_result)
    tune.Tuner(
        tune.with_resources(trial, {"cpu": 0.01}),
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, max_concurrent_trials=2, reuse_actors=True),
        run_config=tune.RunConfig(name="thinking", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert [result["key"] for result in results] == ["key-1", "key-2"]
    assert not ray.get(conductor.vain.remote())
