"""Dense 3x3 layers by Winograd: compiled, run, compared with torch, and chosen only where they may be and pay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_farm.compiler import AVX512, NEON, NEON_FP16, Target, winograd
from device_farm.compiler.graph import (
    Activation,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Padding,
    Pool2d,
    Shape,
    TapUnit,
)
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.packing import PackedConv, PackedWinograd, pack
from device_farm.compiler.passes import find_sparsity, prune_weights, sparsify
from device_farm.compiler.target import TARGETS
from device_farm.compiler.testing import Check, chain, native_targets, random_weights

RELU6 = Activation.RELU6


def layer(name: str, filters: int, *, padding: Padding | None = None, **options: Any) -> Conv2d:
    settings = {"padding": Padding.same(3) if padding is None else padding} | options
    return Conv2d(name, (), filters=filters, kernel=(3, 3), **settings)


def in_context(shape: tuple[int, int, int], op: Conv2d) -> Graph:
    """The layer behind a 1x1 convolution, which gives it any number of channels in whole vectors."""
    return chain((*shape[:2], 8), Conv2d("before", (), filters=shape[2]), op)


def way(graph: Graph, target: Target, name: str = "conv") -> winograd.Winograd | None:
    return plan_memory(graph, target, living=living_blocks(graph, target, weights=None, seed=0)).winograd.get(name)


LAYERS = [  # and the tile that they should get
    ((8, 8, 32), layer("conv", 32), 4),
    ((16, 16, 24), layer("conv", 48, activation=RELU6), 4),
    ((9, 13, 40), layer("conv", 72), 4),
    ((31, 5, 17), layer("conv", 33, activation=Activation.RELU), 4),
    ((29, 27, 16), layer("conv", 10), 4),
    ((4, 4, 64), layer("conv", 64), 2),
    ((3, 7, 64), layer("conv", 100), 2),
    ((14, 14, 20), layer("conv", 130, padding=Padding()), 4),
    ((10, 12, 32), layer("conv", 32, padding=Padding(0, 2, 1, 0)), 4),
]


@pytest.mark.parametrize(("shape", "op", "tile"), LAYERS, ids=str)
def test_layers(shape: tuple[int, int, int], op: Conv2d, tile: int, native: Target, check: Check) -> None:
    graph = in_context(shape, op)
    chosen = way(graph, native)
    assert chosen is not None and chosen.tile == tile
    check(graph, target=native)
    check(graph, target=native, weights=random_weights(graph, seed=2))


def block(height: int, width: int, channels: int) -> Graph:
    return Graph(
        (
            Input("x", (), Shape(height, width, 12)),
            Conv2d("a", ("x",), filters=channels),
            Conv2d("b", ("a",), filters=channels, kernel=(3, 3), padding=Padding.same(3), activation=RELU6),
            Conv2d("c", ("b", "a"), filters=channels, kernel=(3, 3), padding=Padding.same(3), activation=RELU6),
            Conv2d("d", ("c",), filters=channels + 5, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3)),
        )
    )


@pytest.mark.parametrize("shape", [(15, 10, 36), (41, 43, 40), (64, 48, 64)], ids=str)
def test_residual_blocks_with_and_without_a_shared_arena(
    shape: tuple[int, int, int], native: Target, check: Check
) -> None:
    graph = block(*shape)
    assert way(graph, native, "c") is not None
    check(graph, target=native)
    check(graph, target=native, weights=random_weights(graph, seed=3))


STEM = Conv2d("stem", (), 40, (7, 7), (2, 2), Padding.same(7), activation=Activation.RELU)


STEM_OF_X = Conv2d("stem", ("x",), 40, (7, 7), (2, 2), Padding.same(7))


@pytest.mark.parametrize("shape", [(113, 115, 3), (112, 118, 1), (121, 111, 4)], ids=str)
def test_a_stem_is_a_smaller_convolution_of_its_phases(
    shape: tuple[int, int, int], native: Target, check: Check
) -> None:
    graph = chain(shape, STEM, Conv2d("behind", (), 8))
    chosen = way(graph, native, "stem")
    assert chosen is not None and chosen.is_stem
    check(graph, target=native)
    check(graph, target=native, weights=random_weights(graph, seed=5))


def test_stems_that_stay_direct(check: Check) -> None:
    """An image whose pixels have padding because others read it, and a stem whose output never is a whole image."""
    padded = Graph((Input("x", (), Shape(32, 32, 3)), STEM_OF_X, Pool2d("mean", ("x",)), Conv2d("c", ("stem",), 8)))
    assert way(padded, AVX512, "stem") is None
    small = chain((110, 112, 3), STEM)  # whose error is not worth it
    assert way(small, AVX512, "stem") is None
    depthwise = DepthwiseConv2d("depthwise", (), padding=Padding.same(3))
    check(chain((96, 96, 3), STEM, depthwise, Conv2d("project", (), 8)), target=native_targets()[0])


def test_many_channels_stay_accurate_and_seeded_executables_small(check: Check) -> None:
    graph = in_context((7, 7, 256), layer("conv", 256))
    artifact = check(graph, target=native_targets()[0])
    assert artifact.path.stat().st_size < 1_000_000


def ways(graph: Graph, target: Target, weights: dict[str, Any] | None = None) -> dict[str, winograd.Winograd]:
    living = living_blocks(graph, target, weights=weights, seed=1)
    return dict(plan_memory(graph, target, living=living).winograd)


@pytest.mark.parametrize("rate", [1.6, 4.0])
def test_whole_kernels_seeded_and_given(rate: float, native: Target, check: Check) -> None:
    """Two blocks of two vectors and one of one vector, with a residual; both artifacts take the same way."""
    graph = block(15, 10, 2 * native.block_height + 5)
    height, layers = native.block_height, ["b", "c"]
    sparse = sparsify(graph, rate, height, layers=layers, unit=TapUnit.KERNEL)
    found, weights = prune_weights(
        graph, random_weights(graph, seed=3), rate, height, layers=layers, unit=TapUnit.KERNEL
    )
    assert found == sparse
    seeded = ways(sparse, native)
    assert seeded == ways(found, native, weights) == ways(find_sparsity(graph, weights, height), native, weights)
    assert seeded.keys() == {"b", "c"} and all(way.gathered for way in seeded.values())
    assert check(sparse, target=native).kept_macs == sparse.kept_macs
    assert check(found, target=native, weights=weights).kept_macs == sparse.kept_macs


def test_uneven_blocks_of_kernels_one_of_them_empty(native: Target, check: Check) -> None:
    height, channels = native.block_height, 60
    kept = BlockSparsity(height, (0, 9 * channels, 9 * 7), TapUnit.KERNEL)
    graph = in_context((12, 12, channels), layer("conv", 2 * height + 3, sparsity=kept))
    assert ways(graph, native)["conv"].gathered
    assert check(graph, target=native).kept_macs == graph.kept_macs
    weights = random_weights(graph, seed=6)
    weights["conv.weight"][:height] = 0
    weights["conv.weight"][2 * height :, 7:] = 0
    assert ways(graph, native, weights) == ways(graph, native)
    assert check(graph, target=native, weights=weights).kept_macs == graph.kept_macs


def test_single_taps_at_a_low_rate_are_computed_as_if_dense(native: Target, check: Check) -> None:
    """Pruned is never slower than dense: where the direct convolution does not win yet, Winograd stays."""
    graph = in_context((16, 16, 64), layer("conv", 64))
    sparse = sparsify(graph, 1.5, native.block_height, layers=["conv"])
    found, weights = prune_weights(graph, random_weights(graph, seed=7), 1.5, native.block_height, layers=["conv"])
    assert ways(sparse, native) == ways(found, native, weights)
    assert not ways(sparse, native)["conv"].gathered
    assert check(sparse, target=native).kept_macs == sparse.kept_macs < graph.macs
    assert check(found, target=native, weights=weights).kept_macs == sparse.kept_macs


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_no_rate_costs_more_than_a_lower_one(target: Target) -> None:
    graph = in_context((28, 28, 64), layer("conv", 64))
    for unit in (TapUnit.TAP, TapUnit.KERNEL):
        costs = []
        for rate in (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 5.0, 7.0, 10.0):
            pruned = sparsify(graph, rate, target.block_height, layers=["conv"], unit=unit)
            living = living_blocks(pruned, target, weights=None, seed=0)["conv"]
            chosen = ways(pruned, target).get("conv")
            direct = winograd.direct_cost(28, 28, living, target)
            costs.append(direct if chosen is None else winograd.winograd_cost(chosen, target))
        assert costs == sorted(costs, reverse=True), unit
        assert costs[-1] < costs[0] / 3


@pytest.mark.qemu
def test_on_neon(check: Check) -> None:
    graph = block(9, 14, 21)
    assert way(graph, NEON, "c") is not None
    check(graph, target=NEON)
    check(graph, target=NEON, weights=random_weights(graph, seed=4))
    stem = chain((112, 115, 3), STEM)
    assert way(stem, NEON, "stem") is not None
    check(stem, target=NEON)
    check(stem, target=NEON, weights=random_weights(stem, seed=6))
    small = in_context((4, 5, 40), layer("conv", 36, activation=Activation.RELU))
    chosen = way(small, NEON)
    assert chosen is not None and chosen.tile == 2
    check(small, target=NEON)
    wide = in_context((8, 9, 40), layer("conv", 36))
    kernels = sparsify(wide, 2.0, NEON.block_height, layers=["conv"], unit=TapUnit.KERNEL)
    assert ways(kernels, NEON)["conv"].gathered
    check(kernels, target=NEON)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_what_stays_direct(target: Target) -> None:
    taps = 9 * 64
    pruned = BlockSparsity(target.block_height, (taps // 10,) * (64 // target.block_height))
    dense = BlockSparsity(target.block_height, (taps,) * (64 // target.block_height))
    others = {
        "stride": layer("conv", 64, stride=(2, 2)),
        "dilation": layer("conv", 64, dilation=(2, 2)),
        "sparsity": layer("conv", 64, sparsity=pruned),
        "kernel": Conv2d("conv", (), filters=64, kernel=(5, 5), padding=Padding.same(5)),
    }
    for op in others.values():
        assert way(in_context((16, 16, 64), op), target) is None, op
    chosen = way(in_context((16, 16, 64), layer("conv", 64, sparsity=dense)), target)
    assert chosen is not None
    assert (chosen.tile == 2) == (target is NEON_FP16)
    assert way(in_context((1, 9, 64), layer("conv", 64)), target) is None  # lower than any tile
    assert way(chain((16, 16, 3), layer("conv", 64)), target) is None  # the image's pixels are no whole vectors


def test_given_weights_decide_where_the_graph_says_nothing_of_sparsity() -> None:
    graph = in_context((16, 16, 64), layer("conv", 64))

    def packed(density: float) -> object:
        weights = random_weights(graph, seed=5, density=density)
        memory = plan_memory(graph, AVX512, living=living_blocks(graph, AVX512, weights=weights, seed=0))
        return pack(graph, memory, target=AVX512, weights=weights, seed=0)[0]["conv"]

    assert isinstance(packed(1.0), PackedWinograd)
    assert isinstance(packed(0.02), PackedConv)


def test_the_workspace_lies_behind_all_buffers() -> None:
    for shape in ((8, 8, 32), (64, 64, 64)):
        graph = block(*shape)
        memory = plan_memory(graph, AVX512, living=living_blocks(graph, AVX512, weights=None, seed=0))
        largest = max(chosen.workspace for name in "bc" if (chosen := way(graph, AVX512, name)))
        assert memory.scratch >= max(memory.offsets[n] + memory.layouts[n].elements for n in memory.layouts)
        assert memory.elements == memory.scratch + largest


def test_tiles_cover_the_image_in_whole_blocks_without_aliasing() -> None:
    for height, width, channels in ((56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512), (5, 23, 40)):
        chosen = way(in_context((height, width, channels), layer("conv", channels)), AVX512)
        assert chosen is not None
        covered = {tile for first in chosen.first_tiles for tile in range(first, first + chosen.block)}
        assert covered == set(range(chosen.tiles))
        assert all(stride // 16 % 2 == 1 for stride in (chosen.v_tile, chosen.v_plane, chosen.m_tile, chosen.m_plane))


def test_transformed_filters() -> None:
    weight = np.zeros((2, 1, 3, 3), np.float32)
    weight[1, 0, 1, 1] = 1.0
    for tile, middle in ((2, 1 / 2), (4, 1 / 6)):
        planes = winograd.transformed(weight, tile).reshape(tile + 2, tile + 2, 1, 2)
        assert not planes[..., 0].any()
        assert planes[1, 1, 0, 1] == np.float32(middle**2)
        assert planes[0, 0, 0, 1] == 0.0
