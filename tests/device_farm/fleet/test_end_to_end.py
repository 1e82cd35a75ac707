"""The real compiler and the real local device through the farm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from device_farm.compiler.graph import Activation, BlockSparsity, Conv2d, Graph, Input, Padding, Pool2d, Shape
from device_farm.compiler.target import host_target
from device_farm.errors import FarmError, InvalidGraph
from device_farm.fleet.farm import Farm, FarmConfig, LocalDevice
from device_farm.fleet.words import DeviceState
from device_farm.measurement.types import Protocol


def small(*, kept: int = 27, filters: int = 32) -> Graph:
    height = host_target().block_height
    sparsity = BlockSparsity(height, (kept,) * -(-filters // height))
    relu, around = Activation.RELU, Padding.same(3)
    ops = (
        Input("image", (), Shape(8, 8, 3)),
        Conv2d("conv", ("image",), filters, (3, 3), padding=around, activation=relu, sparsity=sparsity),
        Pool2d("pool", ("conv",), kernel=(8, 8), stride=(8, 8)),
        Conv2d("head", ("pool",), 10),
    )
    return Graph(ops)


@pytest.fixture(scope="module")
def farm(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    protocol = Protocol(warmup_s=0.01, min_time_s=0.02, max_relative_ci=0.5)
    core = max(os.sched_getaffinity(0))
    cache_dir = tmp_path_factory.mktemp("end-to-end")
    one = LocalDevice(cpu=core, num_cpus=0)
    two = LocalDevice(model="two", name="two", num_cpus=0, threads=2, cpus=(core, min(os.sched_getaffinity(0))))
    farm = Farm.start(FarmConfig((one, two), cache_dir, protocol=protocol, name="end-to-end"))
    yield farm
    farm.stop()


def test_a_network_is_compiled_and_measured(farm: Farm) -> None:
    device, _ = farm.devices()
    assert (
        device.state is DeviceState.HEALTHY and device.facts is not None and device.facts.target == host_target().name
    )
    measurement = farm.measure(small(), model="local", timeout_s=300)
    assert 0 < measurement.ci_low_ms <= measurement.latency_ms <= measurement.ci_high_ms < 1
    assert measurement.max_relative_error < 1e-4
    assert measurement.device.serial == device.serial
    assert {name for name, _ in measurement.steps_ms} >= {"conv", "head"}
    again = farm.submit(small(), model="local")
    assert again.result(60) == measurement


def test_a_device_of_two_threads_gets_artifacts_for_two(farm: Farm) -> None:
    alone, together = (farm.measure(small(), model=model, timeout_s=300) for model in ("local", "two"))
    assert (alone.conditions["threads"], together.conditions["threads"]) == (1, 2)
    assert len(together.conditions["thread_cores"]) == together.device.threads == 2
    assert alone.artifact_key != together.artifact_key


def test_weights_of_our_own_are_measured_with_their_answers_checked(farm: Farm) -> None:
    random = np.random.default_rng(0)
    shapes = {"conv.weight": (32, 3, 3, 3), "conv.bias": (32,), "head.weight": (10, 32, 1, 1), "head.bias": (10,)}
    weights = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    measurement = farm.measure(small(), model="local", weights=weights, timeout_s=300)
    assert measurement.max_relative_error < 1e-4
    assert measurement.artifact_key != farm.measure(small(), model="local", timeout_s=300).artifact_key


def test_weights_that_do_not_fit_are_the_callers_error(farm: Farm) -> None:
    with pytest.raises(InvalidGraph) as caught:
        farm.measure(small(), model="local", weights={"conv.weight": np.zeros((1, 2, 3, 4), np.float32)}, timeout_s=300)
    assert isinstance(caught.value, FarmError) and type(caught.value) is InvalidGraph


def test_several_networks_leave_nothing_on_the_device(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> None:
    pending = [farm.submit(small(kept=kept), model="local") for kept in (3, 9, 14)]
    assert len({p.result(300).artifact_key for p in pending}) == 3
    cache = tmp_path_factory.getbasetemp()
    left = [path for path in cache.glob("end-to-end*/devices/**/*") if path.is_file()]
    assert left == [] and list(cache.glob("end-to-end*/out/*")) == []
