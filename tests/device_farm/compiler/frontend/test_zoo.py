"""Small networks of many kinds: torch, ONNX Runtime and the executable agree on every target, dense and pruned."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks._harness import relative_error
from benchmarks._onnx import to_onnx
from benchmarks.models import MODELS, calibrate, initialised, zoo
from benchmarks.peers.onnxruntime import answer
from device_farm.compiler import NEON, NEON_FP16, Target, compile_network, host_target
from device_farm.compiler.frontend import Imported, import_module, import_onnx
from device_farm.compiler.graph import Concat, Graph, Input, Shape
from device_farm.compiler.passes import prune_weights
from device_farm.compiler.testing import native_targets, run_artifact

RATES = (1, 3, 10)
TOLERANCE = 1e-4
EVERYWHERE = ("densenet", "mobilenet_v3", "shufflenet_v2")  # between them, every kind of operator; others only slowly


def _marks(name: str, target: Target) -> list[pytest.MarkDecorator]:
    """Every network is slowly tested on every target, and always on the host's best one."""
    fast = target == host_target() or name in EVERYWHERE
    return [pytest.mark.qemu] * (target not in native_targets()) + [pytest.mark.slow] * (not fast)


CASES = [
    pytest.param(name, target, marks=_marks(name, target), id=f"{name}-{target.name}")
    for name in zoo.ZOO
    for target in (*native_targets(), NEON, NEON_FP16)
]


@functools.cache
def imported(name: str) -> tuple[Imported, torch.Tensor]:
    """A network of the zoo and an image, after our graph was compared with torch."""
    torch.set_num_threads(1)
    module, extents = zoo.make(name), zoo.EXTENTS.get(name, (32, 32))
    image = torch.randn(1, 3, *extents, generator=torch.Generator().manual_seed(1))
    network = import_module(module, Shape(*extents, 3))
    expected = answer_of_onnx_runtime(network.graph, network.weights, image)
    with torch.no_grad():
        assert relative_error(expected, module(image).numpy()) <= 1e-5
        other = module(-image).numpy()
    assert relative_error(other, expected) > 1e-2  # the image makes the difference
    return network, image


def answer_of_onnx_runtime(graph: Graph, weights: Any, image: torch.Tensor) -> NDArray[np.float32]:
    return answer(to_onnx(graph, weights), image.numpy())


def side_by_side(networks: list[tuple[Graph, Any]]) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """Networks that read one image, as one network that joins their answers: one link instead of several."""
    ops: list[Any] = [networks[0][0].input]
    weights: dict[str, NDArray[Any]] = {}
    for index, (graph, own) in enumerate(networks):
        names = {op.name: f"{index}/{op.name}" for op in graph.ops} | {graph.input.name: ops[0].name}
        for op in graph.ops:
            if not isinstance(op, Input):
                inputs = tuple(names[source] for source in op.inputs)
                ops.append(dataclasses.replace(op, name=names[op.name], inputs=inputs))
        weights |= {f"{index}/{name}": value for name, value in own.items()}
    outputs = tuple(f"{index}/{graph.output.name}" for index, (graph, _) in enumerate(networks))
    return Graph((*ops, Concat("answers", outputs))), weights


@pytest.mark.parametrize(("name", "target"), CASES)
def test_the_executable_answers_as_onnx_runtime_does_at_every_rate(
    name: str, target: Target, cache_dir: Path, tmp_path: Path
) -> None:
    network, image = imported(name)
    pruned = [prune_weights(network.graph, network.weights, rate, target.block_height) for rate in RATES]
    expected = [answer_of_onnx_runtime(graph, weights, image).reshape(-1) for graph, weights in pruned]
    graph, weights = side_by_side(pruned)
    artifact = compile_network(graph, target=target, out_dir=tmp_path, cache_dir=cache_dir, weights=weights)
    answers = run_artifact(artifact, image.permute(0, 2, 3, 1).numpy(), scratch=tmp_path).reshape(len(RATES), -1)
    for rate, got, wanted in zip(RATES, answers, expected, strict=True):
        assert np.ptp(wanted) > 0
        assert relative_error(got, wanted) <= target.element.tolerance, f"{name} at {rate}x on {target.name}"


@pytest.mark.parametrize("name", ["densenet", "ghostnet", "inception", "mobilenet_v3", "shufflenet_v2"])
def test_what_is_written_as_onnx_is_read_back(name: str) -> None:
    network, _ = imported(name)
    again = import_onnx(to_onnx(network.graph, network.weights))
    assert [op.kind for op in again.graph.ops] == [op.kind for op in network.graph.ops]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_whole_architectures_answer_as_onnx_runtime_does(name: str, cache_dir: Path, tmp_path: Path) -> None:
    pixels, target = 64, host_target()
    module = calibrate(initialised(name), pixels=pixels)
    network = import_module(module, Shape(pixels, pixels, 3))
    image = torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))
    for rate in RATES:
        graph, weights = prune_weights(network.graph, network.weights, rate, target.block_height)
        expected = answer_of_onnx_runtime(graph, weights, image)
        artifact = compile_network(graph, target=target, out_dir=tmp_path, cache_dir=cache_dir, weights=weights)
        actual = run_artifact(artifact, image.permute(0, 2, 3, 1).numpy(), scratch=tmp_path)
        assert relative_error(actual, expected) <= TOLERANCE, f"{name} at {rate}x"
