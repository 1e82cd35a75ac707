"""What `networks.py` times of ours: one network at one rate, as a search times it and as it ships, verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks._harness import Session, artifact_session, relative_error
from benchmarks._onnx import to_onnx
from benchmarks.models import calibrate, initialised
from device_farm.compiler import Graph, compile_network
from device_farm.compiler.frontend import Imported, import_module
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import Conv2d, Shape, TapUnit
from device_farm.compiler.passes import find_sparsity, prune_weights, sparsify
from device_farm.compiler.target import Target
from device_farm.compiler.testing import run_artifact


@dataclass(frozen=True)
class Case:
    """A dense network, its image, torch's answer, and the ONNX model that the peers get."""

    name: str
    graph: Graph
    image: torch.Tensor  # 1 x 3 x pixels x pixels
    expected: NDArray[np.float32]
    model: bytes

    @property
    def pixels(self) -> int:
        return int(self.image.shape[2])


@dataclass(frozen=True)
class Build:
    """One rate of one network, compiled in every way that is timed."""

    rate: float
    unit: TapUnit
    kept_macs: int
    bench: Path  # weights and taps from a seed: what a search times
    shipped: Path  # a pruned module's weights
    unfused: Path | None  # the first one without fused blocks, where it has any
    error: float  # of the shipped one's answer, relative to torch's of the same pruned module

    @property
    def label(self) -> str:
        if self.rate == 1:
            return "dense"
        return f"{self.rate:g}x kernels" if self.unit is TapUnit.KERNEL else f"{self.rate:g}x"

    def sessions(self) -> dict[str, Session]:
        made = {self.label: artifact_session(self.bench), f"{self.label} shipped": artifact_session(self.shipped)}
        if self.unfused is not None:
            made[f"{self.label} unfused"] = artifact_session(self.unfused)
        return made


def case(name: str, pixels: int) -> Case:
    """The dense network with weights from a seed."""
    module = calibrate(initialised(name), pixels=pixels)
    imported = _imported(module, pixels)
    image = torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(2))
    model = to_onnx(imported.graph, imported.weights).SerializeToString()
    return Case(name, imported.graph, image, _answer(module, image), model)


def units(graph: Graph, rate: float) -> tuple[TapUnit, ...]:
    """In which units a rate is worth timing: whole kernels where there are 3x3 convolutions to prune."""
    kernels = any(
        isinstance(op, Conv2d) and op.kernel == (3, 3) and graph.input.name not in op.inputs for op in graph.ops
    )
    return (TapUnit.TAP, TapUnit.KERNEL) if rate > 1 and kernels else (TapUnit.TAP,)


def build(case: Case, rate: float, unit: TapUnit, *, target: Target, scratch: Path, cache: Path) -> Build:
    """Compile one rate. Raises RuntimeError where a user's pruned module would be compiled to something else."""
    shape = sparsify(case.graph, rate, target.block_height, unit=unit)
    bench = compile_network(shape, target=target, out_dir=scratch, cache_dir=cache).path
    unfused = None
    if fused_blocks(shape):
        unfused = compile_network(shape, target=target, out_dir=scratch, cache_dir=cache, fuse=False).path

    # the way of a user: prune the module, recalibrate it, import it; its sparsity is found in its weights
    module = _pruned(initialised(case.name), case.graph, rate, target.block_height, unit)
    module = calibrate(module, pixels=case.pixels)
    user = _imported(module, case.pixels)
    found = find_sparsity(user.graph, user.weights, target.block_height, unit=unit)
    if found != shape:
        raise RuntimeError(
            f"{case.name} at {rate:g}x: the pruned module has another sparsity than the one that is timed"
        )
    shipped = compile_network(found, target=target, out_dir=scratch, cache_dir=cache, weights=user.weights)
    nhwc = case.image.permute(0, 2, 3, 1).contiguous().numpy()
    error = relative_error(run_artifact(shipped, nhwc, scratch=scratch), _answer(module, case.image))
    return Build(rate, unit, shape.kept_macs, bench, shipped.path, unfused, error)


def _imported(module: nn.Module, pixels: int) -> Imported:
    return import_module(module, Shape(pixels, pixels, 3))


def _answer(module: nn.Module, image: torch.Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        answer: NDArray[np.float32] = module(image).numpy()
    return answer


def _pruned(module: nn.Module, graph: Graph, rate: float, block_height: int, unit: TapUnit) -> nn.Module:
    """Zero the weakest units of the module's weights; a convolution's name in the graph is its path in the module."""
    weights = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    _, pruned = prune_weights(graph, weights, rate, block_height, unit=unit)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in pruned.items()}, strict=False)
    return module
