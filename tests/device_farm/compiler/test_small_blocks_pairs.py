"""Blocks of eight filters by pairs of pixels: the upper half of the rows beside the lower one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from device_farm.compiler import AVX512, NEON, Graph, Target, host_target
from device_farm.compiler.graph import Activation, BlockSparsity, Conv2d, Input, Op, Padding, Shape
from device_farm.compiler.kernels.spec import ConvKernel, PairsKernel
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.pairing import pair_image
from device_farm.compiler.steps import Step
from device_farm.compiler.testing import Check, chain, random_weights

AVX512_ONLY = pytest.mark.skipif(host_target() != AVX512, reason="this machine has no AVX-512")


def steps(graph: Graph, target: Target) -> tuple[Step, ...]:
    memory = plan_memory(graph, target)
    packed, _ = pack(graph, memory, target=target, weights=None, seed=1)
    return lower(graph, memory, packed, target)


def is_paired(graph: Graph, target: Target = AVX512) -> bool:
    return any(isinstance(call.spec, PairsKernel) for step in steps(graph, target) for call in step.calls)


def taps(op: Conv2d, channels: int) -> BlockSparsity:
    """About half of the taps in blocks of eight, one of which has none."""
    every = channels // op.groups * op.kernel[0] * op.kernel[1]
    counts = [every // 2 + block % 3 for block in range(-(-op.filters // 8))]
    counts[1] = 0
    return BlockSparsity(8, tuple(counts))


def layer(channels: int, **fields: Any) -> Conv2d:
    settings: dict[str, Any] = {"filters": 120, "activation": Activation.RELU} | fields
    op = Conv2d("conv", (), **settings)
    return dataclasses.replace(op, sparsity=taps(op, channels))


LAYERS = {
    "pixels of a flat image": ((6, 6, 16), layer(16)),
    "an odd number of them": ((7, 7, 24), layer(24, activation=Activation.SWISH)),
    "two pixels": ((1, 2, 16), layer(16)),
    "rows of windows": ((8, 5, 16), layer(16, kernel=(3, 3), padding=Padding.same(3))),
    "an odd number of rows": ((9, 30, 16), layer(16, kernel=(3, 3), padding=Padding.same(3))),
    "a stride": ((13, 11, 16), layer(16, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3))),
    "a stride of single pixels": ((13, 12, 16), layer(16, stride=(2, 2))),
    "a stride of columns": ((5, 12, 16), layer(16, kernel=(1, 3), stride=(1, 2), padding=Padding(0, 1, 0, 1))),
    "a dilation": ((12, 9, 16), layer(16, kernel=(3, 3), dilation=(2, 3), padding=Padding(2, 3, 2, 3))),
    "a border around single pixels": ((4, 6, 16), layer(16, padding=Padding(1, 2, 0, 1))),
    "groups of channels": ((6, 5, 32), layer(32, kernel=(3, 3), padding=Padding.same(3), groups=2, filters=80)),
    "filters that fill no block": ((6, 5, 20), layer(20, filters=123, activation=Activation.HARD_SWISH)),
    "pixels a way of the cache apart": ((4, 4, 256), layer(256)),
}


@AVX512_ONLY
@pytest.mark.parametrize("name", LAYERS)
def test_pairs_are_what_the_layer_computes(name: str, check: Check) -> None:
    shape, op = LAYERS[name]
    graph = chain(shape, op)
    assert is_paired(graph)
    assert check(graph, target=AVX512).kept_macs == graph.kept_macs


def residual_graph(kernel: int, size: int = 9) -> Graph:
    ops: list[Op] = [Input("x", (), Shape(size, 8, 64))]
    for name, inputs in (("a", ("x",)), ("b", ("a", "x")), ("c", ("b", "a"))):
        op = layer(64, filters=64, kernel=(kernel, kernel), padding=Padding.same(kernel))
        ops.append(dataclasses.replace(op, name=name, inputs=inputs))
    return Graph(tuple(ops))


@AVX512_ONLY
@pytest.mark.parametrize("kernel", [1, 3])
def test_residuals(kernel: int, check: Check) -> None:
    graph = residual_graph(kernel)
    assert is_paired(graph)
    check(graph, target=AVX512)


@AVX512_ONLY
@pytest.mark.parametrize("kernel", [1, 3])
def test_deployed_weights(kernel: int, check: Check) -> None:
    graph = residual_graph(kernel)
    assert check(graph, target=AVX512, weights=random_weights(graph, seed=3, density=0.4)).kept_macs < graph.macs


def test_pairs_are_for_layers_that_they_make_faster() -> None:
    def paired(filters: int, rate: float, *, height: int = 8, target: Target = AVX512, size: int = 14) -> bool:
        blocks = BlockSparsity(height, (round(128 / rate),) * (filters // height))
        return is_paired(chain((size, size, 128), Conv2d("conv", (), filters=filters, sparsity=blocks)), target)

    assert paired(256, 2) and paired(256, 5) and paired(1024, 10)
    assert not paired(32, 2) and not paired(128, 10), "the pairs cost more than they save"
    assert not paired(256, 2, height=16) and not paired(256, 2, height=32)
    assert not paired(256, 2, target=NEON)
    assert not paired(256, 2, size=1), "one pixel has no partner"


def test_each_half_begins_within_the_image() -> None:
    """An odd row is computed twice; the window of a half is no larger than it needs."""
    random = np.random.default_rng(0)
    for _ in range(50):
        kernel, stride = (int(number) for number in random.integers(1, 4, 2))
        height, width = (int(number) for number in random.integers(kernel + stride, 20, 2))
        op = layer(16, kernel=(kernel, kernel), stride=(stride, stride), padding=Padding.same(kernel))
        graph = chain((height, width, 16), op)
        layouts = plan_memory(graph, AVX512).layouts
        image = pair_image(op, (layouts["x"], layouts["conv"]), AVX512)
        out = graph.shapes["conv"]
        assert image is not None
        whole = out.height * out.width if image.flat else out.height
        assert image.rows + image.skipped == whole
        assert image.rows - image.skipped in (0, 1)
        assert image.columns == (1 if image.flat else out.width)


def test_the_lower_half_of_a_call_is_its_partner() -> None:
    (step,) = steps(chain((10, 4, 16), layer(16, kernel=(3, 3), padding=Padding.same(3))), AVX512)
    pairs, conv = step.calls
    assert isinstance(conv.spec, ConvKernel)
    assert conv.spec.lane_pixels == 2
    row = conv.arguments["y_row"]
    assert isinstance(row, int)
    assert (conv.arguments["rows"], conv.arguments["y_lower"]) == (5, 5 * row)
    assert pairs.arguments["rows"] == 7
