"""Sigmoids, products, softmax, and channels that are joined, cut and shuffled: compiled, run, compared with torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from device_farm.compiler import Graph, Target, compile_network
from device_farm.compiler.graph import (
    Activate,
    Activation,
    BlockSparsity,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Input,
    Multiply,
    Op,
    Padding,
    Pool2d,
    ResizeChannels,
    Shape,
    ShuffleChannels,
    SliceChannels,
    Softmax,
)
from device_farm.compiler.passes import find_sparsity
from device_farm.compiler.testing import Answer, Check, chain, random_weights
from device_farm.errors import InvalidGraph

EXACT: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    Activation.SIGMOID: torch.sigmoid,
    Activation.SWISH: functional.silu,
    Activation.HARD_SIGMOID: functional.hardsigmoid,
    Activation.HARD_SWISH: functional.hardswish,
}


@pytest.mark.parametrize("activation", list(EXACT))
def test_activations_are_as_exact_as_float32(
    activation: Activation, native: Target, answer: Answer, cache_dir: Path, tmp_path: Path
) -> None:
    edges = [0, -3, 3, 87.3, -87.3, 88.4, -88.4, 1e4, -1e4, 1e-30, -1e-30]
    x = np.concatenate([np.linspace(-30, 30, 40_000), np.linspace(-110, 110, 7_997), edges]).astype(np.float32)
    graph = chain((1, len(x) // 16, 16), Activate("a", (), activation=activation))
    artifact = compile_network(graph, target=native, out_dir=tmp_path, cache_dir=cache_dir)
    actual = answer(artifact, x[: len(x) // 16 * 16]).ravel().astype(np.float64)
    given = torch.tensor(x[: actual.size]).double()
    expected = EXACT[activation](given).numpy()
    error = np.abs(actual - expected)
    if "hard" in activation:
        assert (error <= 1e-7 * np.maximum(1, np.abs(given.numpy()))).all()
    else:
        size = np.abs(given.numpy())
        assert (error <= (2.5e-7 + 1.4e-8 * size) * np.abs(expected) + 2e-38 * np.maximum(size, 1)).all()


def squeeze_excite(channels: int, inner: Activation, gate: Activation, size: int = 9) -> Graph:
    return Graph(
        (
            Input("x", (), Shape(size, size - 2, 3)),
            Conv2d("expand", ("x",), filters=channels, activation=inner),
            DepthwiseConv2d("dw", ("expand",), padding=Padding.same(3), activation=inner),
            Pool2d("pool", ("dw",), kernel=(size, size - 2)),
            Conv2d("fc1", ("pool",), filters=max(channels // 4, 1), activation=inner),
            Conv2d("fc2", ("fc1",), filters=channels, activation=gate),
            Multiply("scale", ("dw", "fc2")),
            Conv2d("project", ("scale", "scale") if channels == 24 else ("scale",), filters=24),
            DepthwiseConv2d("after", ("scale",), padding=Padding.same(3), activation=gate),
            ResizeChannels("wide", ("after",), channels=channels + 40),
        )
    )


@pytest.mark.parametrize("channels", [5, 24, 64])
@pytest.mark.parametrize(
    ("inner", "gate"), [(Activation.SWISH, Activation.SIGMOID), (Activation.HARD_SWISH, Activation.HARD_SIGMOID)]
)
def test_squeeze_and_excite(channels: int, inner: Activation, gate: Activation, native: Target, check: Check) -> None:
    check(squeeze_excite(channels, inner, gate), target=native)


def test_products_of_equal_shapes_and_with_a_vector_of_the_input(native: Target, check: Check) -> None:
    graph = Graph(
        (
            Input("x", (), Shape(6, 5, 20)),
            DepthwiseConv2d("dw", ("x",), padding=Padding.same(3)),
            Multiply("product", ("x", "dw"), activation=Activation.RELU),
            Pool2d("pool", ("dw",), kernel=(6, 5)),
            Multiply("scaled", ("product", "pool"), activation=Activation.HARD_SWISH),
            Multiply("squared", ("scaled", "scaled")),
        )
    )
    check(graph, target=native)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 10), (1, 1, 16), (1, 1, 1000), (3, 2, 37)], ids=str)
def test_softmax(shape: tuple[int, int, int], native: Target, check: Check) -> None:
    large = Conv2d("large", (), filters=shape[2])
    graph = chain(shape, large, Softmax("softmax", ()))
    weights = {
        "large.weight": 30 * np.random.default_rng(0).standard_normal((shape[2], shape[2], 1, 1)).astype(np.float32),
        "large.bias": np.zeros(shape[2], np.float32),
    }
    check(graph, target=native)
    check(graph, target=native, weights=weights)
    check(Graph((*graph.ops, Conv2d("behind", ("softmax",), filters=7))), target=native)


@pytest.mark.parametrize("widths", [(3,), (5, 7), (16, 32), (1, 16, 1), (33, 8, 20, 3), (24, 24)], ids=str)
def test_concat(widths: tuple[int, ...], native: Target, check: Check) -> None:
    parts: list[Op] = [
        Conv2d(f"p{i}", ("x",), filters=width, kernel=(3, 3), padding=Padding.same(3)) for i, width in enumerate(widths)
    ]
    names = tuple(part.name for part in parts)
    joined = [
        Concat("joined", (*names, "x", names[0])),
        DepthwiseConv2d("dw", ("joined",), padding=Padding.same(3), activation=Activation.SIGMOID),
        ResizeChannels("wide", ("dw",), channels=200),
        Concat("twice", ("wide", "joined")),
        Conv2d("last", ("twice",), filters=9),
    ]
    graph = Graph((Input("x", (), Shape(5, 6, 7)), *parts, *joined))
    check(graph, target=native)


@pytest.mark.parametrize(("first", "channels"), [(0, 3), (1, 16), (5, 36), (16, 25), (40, 1)])
def test_slices_of_channels(first: int, channels: int, native: Target, check: Check) -> None:
    wide = Conv2d("wide", (), filters=41)
    part = SliceChannels("part", (), first=first, channels=channels)
    check(chain((4, 5, 6), wide, part, DepthwiseConv2d("dw", (), padding=Padding.same(3))), target=native)


@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (6, 3), (48, 4), (58, 2), (7, 7), (5, 1)])
def test_channel_shuffle(channels: int, groups: int, native: Target, check: Check) -> None:
    wide = Conv2d("wide", (), filters=channels)
    shuffled = ShuffleChannels("shuffled", (), groups=groups)
    check(chain((4, 5, 6), wide, shuffled, DepthwiseConv2d("dw", (), padding=Padding.same(3))), target=native)


GROUPED = [
    ((9, 9, 12), Conv2d("conv", (), filters=20, kernel=(3, 3), padding=Padding.same(3), groups=4)),
    ((6, 7, 128), Conv2d("conv", (), filters=128, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3), groups=32)),
    ((5, 5, 64), Conv2d("conv", (), filters=192, groups=2)),
    ((5, 5, 6), Conv2d("conv", (), filters=18, kernel=(3, 3), groups=6, activation=Activation.RELU)),
    ((1, 1, 96), Conv2d("conv", (), filters=48, groups=3)),
    ((7, 7, 30), Conv2d("conv", (), filters=50, kernel=(3, 3), dilation=(2, 1), groups=10)),
]


@pytest.mark.parametrize(("shape", "op"), GROUPED, ids=str)
def test_grouped_convolutions(shape: tuple[int, int, int], op: Conv2d, native: Target, check: Check) -> None:
    graph = chain(shape, op)
    assert check(graph, target=native).kept_macs == graph.macs
    pruned = chain(shape, DepthwiseConv2d("dw", (), kernel=(1, 1)), sparsify_all(op, shape))
    check(pruned, target=native)
    weights = random_weights(pruned, seed=2, density=0.5)
    found = find_sparsity(pruned, weights, native.block_height)
    artifact = check(found, target=native, weights=weights)
    assert artifact.kept_macs < graph.macs
    residual = Graph((*graph.ops, replace(graph.output, name="more", inputs=("x", "conv"))))
    check(residual, target=native)


def sparsify_all(op: Conv2d, shape: tuple[int, int, int]) -> Conv2d:
    """Blocks of 12 filters, which are neither groups nor blocks of the generator."""
    taps = op.taps(Shape(*shape))
    kept = tuple(max(1, taps // (2 + block % 3)) for block in range(-(-op.filters // 12)))
    return replace(op, sparsity=BlockSparsity(12, kept))


def test_large_graphs_share_memory_rightly(native: Target, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_farm.compiler.layout.SHARING_THRESHOLD", 0)
    check(squeeze_excite(20, Activation.SWISH, Activation.SIGMOID, size=12), target=native)
    ops: list[Op] = [Input("x", (), Shape(8, 8, 5)), Conv2d("c0", ("x",), filters=12)]
    for i in range(4):  # dense blocks: every buffer lives on in the next concatenation
        ops.append(Conv2d(f"d{i}", (ops[-1].name,), filters=7, kernel=(3, 3), padding=Padding.same(3)))
        ops.append(Concat(f"j{i}", (ops[-2].name, ops[-1].name)))
        ops.append(ShuffleChannels(f"s{i}", (ops[-1].name,), groups=1))
    check(Graph(tuple(ops)), target=native)


def test_what_does_not_fit_is_refused_with_both_sides() -> None:
    image = Input("x", (), Shape(4, 4, 6))
    pool = Pool2d("p", ("x",), kernel=(4, 2), stride=(1, 1))
    for op, message in [
        (Multiply("m", ("x", "p")), r"m: cannot multiply \(4, 4, 6\) by \(1, 3, 6\).*\(1, 1, 6\)"),
        (Concat("c", ("x", "p")), "c: cannot join.*4x4, 1x3"),
        (SliceChannels("s", ("x",), first=3, channels=4), r"s: channels 3\.\.7 of 6"),
        (ShuffleChannels("h", ("x",), groups=4), "h: 6 channels are no 4 equal groups"),
        (Concat("none", ()), "none: 0 inputs"),
        (Conv2d("g", ("x",), filters=6, groups=4), "g: 6 channels and 6 filters are no 4 equal groups"),
    ]:
        with pytest.raises(InvalidGraph, match=message):
            Graph((image, pool, op))


def test_graphs_survive_json() -> None:
    graph = Graph(
        (
            *squeeze_excite(8, Activation.SWISH, Activation.SIGMOID).ops,
            SliceChannels("s", ("wide",), first=3, channels=4),
            Concat("c", ("s", "wide", "s")),
            ShuffleChannels("h", ("c",), groups=2),
            Softmax("soft", ("h",)),
        )
    )
    assert Graph.from_json(graph.to_json()) == graph
