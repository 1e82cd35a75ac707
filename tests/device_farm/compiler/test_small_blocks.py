"""Blocks lower than two vectors, taps of four channels, and pixels that would drive each other out of the cache."""

from __future__ import annotations

import pytest

from device_farm.compiler import NEON, Graph, Target
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import (
    Activation,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Input,
    Padding,
    Shape,
    TapUnit,
)
from device_farm.compiler.kernels.spec import ConvKernel
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.testing import Check, chain, random_weights


def conv_kernels(graph: Graph, target: Target) -> list[ConvKernel]:
    memory = plan_memory(graph, target)
    packed, _ = pack(graph, memory, target=target, weights=None, seed=1)
    specs = [call.spec for step in lower(graph, memory, packed, target) for call in step.calls]
    return [spec for spec in specs if isinstance(spec, ConvKernel)]


def sparse(filters: int, kernel: int, sparsity: BlockSparsity | None, *, stride: int = 1, groups: int = 1) -> Conv2d:
    return Conv2d(
        "conv", (), filters=filters, kernel=(kernel, kernel), stride=(stride, stride), padding=Padding.same(kernel),
        activation=Activation.RELU, sparsity=sparsity, groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize("height", [8, 16, 24, 40, 48])
def test_blocks_of_any_multiple_of_eight_compute_their_own_taps_only(height: int, native: Target, check: Check) -> None:
    blocks = 3
    kept = BlockSparsity(height, (10, 0, 25))
    graph = chain((5, 6, 32), sparse(blocks * height - 3, 1, kept))
    assert check(graph, target=native).kept_macs == graph.kept_macs


def test_free_taps_in_blocks_of_eight_are_single(native: Target) -> None:
    graph = chain((6, 6, 64), sparse(16, 1, BlockSparsity(8, (11, 9))))
    assert {kernel.tap_channels for kernel in conv_kernels(graph, native)} == {1}


def test_pixels_are_not_a_way_of_the_cache_apart(native: Target, check: Check) -> None:
    """1,024 floats a pixel are 4 KiB, so all pixels of a tile would share one set; the odd line must do no harm."""
    ops = (
        Conv2d("a", (), filters=512, activation=Activation.SIGMOID),
        DepthwiseConv2d("d", (), padding=Padding.same(3)),
        Conv2d("b", (), filters=9, sparsity=BlockSparsity(8, (100, 100))),
    )
    graph = chain((4, 3, 1024), *ops)
    layouts = plan_memory(graph, native).layouts
    assert [layouts[name].pixel_stride % 512 for name in ("x", "a", "d")] == [16, 16, 16]
    check(graph, target=native)


def test_dense_layers_on_neon_read_four_channels_at_once() -> None:
    ops = (sparse(8, 3, None, stride=2), Conv2d("one", (), filters=12), Conv2d("odd", (), filters=8, kernel=(5, 5)))
    kernels = conv_kernels(chain((20, 20, 8), *ops), NEON)
    assert [kernel.tap_channels for kernel in kernels] == [4] * len(kernels)
    (stem,) = conv_kernels(chain((9, 9, 3), sparse(8, 3, None, stride=2)), NEON)
    assert stem.tap_channels == 1


@pytest.mark.qemu
def test_quads_on_neon(check: Check) -> None:
    quads = BlockSparsity(8, (28, 0, 62, 14), TapUnit.QUAD)  # of 14 channels: two of every fourth unit
    graph = chain(
        (13, 9, 14),
        sparse(30, 3, quads, stride=2),
        Conv2d("up", (), filters=44, activation=Activation.SWISH),
        Conv2d("few", (), filters=6, kernel=(3, 3), groups=2),
    )
    check(graph, target=NEON)
    weights = random_weights(graph, seed=2)
    check(graph, target=NEON, weights=weights)


@pytest.mark.qemu
def test_quads_within_a_fused_block_on_neon(check: Check) -> None:
    graph = Graph(
        (
            Input("x", (), Shape(28, 28, 12)),
            Conv2d("expand", ("x",), filters=72, activation=Activation.RELU6),
            DepthwiseConv2d("dw", ("expand",), padding=Padding.same(3), activation=Activation.RELU6),
            Conv2d("project", ("dw", "x"), filters=12, sparsity=BlockSparsity(8, (24, 20), TapUnit.QUAD)),
        )
    )
    assert len(fused_blocks(graph)) == 1
    check(graph, target=NEON)
