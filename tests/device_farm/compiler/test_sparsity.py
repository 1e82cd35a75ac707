"""Pruned layers: seeded and real, even and uneven, full and empty blocks, of every height."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_farm.compiler import Target, compile_network, reference_output, seeded_weights
from device_farm.compiler.graph import (
    Activation,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Op,
    Padding,
    Pool2d,
    ScatterChannels,
    Shape,
    TapUnit,
)
from device_farm.compiler.passes import prune_weights, sparsify
from device_farm.compiler.testing import Answer, Check, chain, random_weights


def sparse_conv(name: str, filters: int, kernel: int, sparsity: BlockSparsity | None, stride: int = 1) -> Conv2d:
    return Conv2d(
        name,
        (),
        filters=filters,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=Padding.same(kernel),
        activation=Activation.RELU,
        sparsity=sparsity,
    )


@pytest.mark.parametrize("rate", [1, 2, 3, 5, 10])
def test_even_blocks(rate: int, native: Target, check: Check) -> None:
    height = native.block_height
    kept = BlockSparsity(height, (32 * 9 // rate,) * -(-72 // height))
    artifact = check(chain((8, 8, 32), sparse_conv("conv", 72, 3, kept)), target=native)
    assert artifact.kept_macs == 64 * 72 * (32 * 9 // rate)
    assert artifact.macs == 64 * 72 * 32 * 9


def test_uneven_and_empty_blocks(native: Target, check: Check) -> None:
    height = native.block_height
    kept = (0, 40, 3, 1, 0)
    graph = chain((7, 7, 40), sparse_conv("conv", 4 * height + 3, 1, BlockSparsity(height, kept)))
    artifact = check(graph, target=native)
    assert artifact.kept_macs == graph.kept_macs == 49 * height * (0 + 40 + 3 + 1)
    check(chain((7, 7, 40), sparse_conv("conv", height, 3, BlockSparsity(height, (0,)))), target=native)


@pytest.mark.parametrize("height", [1, 3, 4, 8, 16, 32, 64, 1000])
def test_any_block_height_is_computed_rightly(height: int, native: Target, check: Check) -> None:
    filters = 50
    kept = tuple(17 * (b % 5) for b in range(-(-filters // height)))
    check(chain((6, 6, 12), sparse_conv("conv", filters, 3, BlockSparsity(height, kept))), target=native)


def test_blocks_of_one_vector_keep_their_own_taps(native: Target, check: Check) -> None:
    kept = BlockSparsity(native.simd_lanes, (5, 0, 30, 7))
    graph = chain((4, 4, 32), sparse_conv("conv", 4 * native.simd_lanes, 1, kept))
    assert check(graph, target=native).kept_macs == graph.kept_macs


def network(target: Target) -> Graph:
    height = target.block_height
    ops: list[Op] = [
        Input("image", (), Shape(16, 16, 1)),
        Conv2d("stem", ("image",), filters=32, kernel=(3, 3), padding=Padding.same(3), activation=Activation.RELU),
        Conv2d("a", ("stem",), filters=20, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3)),
        ScatterChannels("s", ("a",), channels=48),
        DepthwiseConv2d("d", ("s",), padding=Padding.same(3), activation=Activation.RELU6),
        Conv2d("b", ("d", "s"), filters=48, sparsity=BlockSparsity(height, (9,) * -(-48 // height))),
        Pool2d("pool", ("b",), kernel=(8, 8), stride=(8, 8)),
        Conv2d("fc", ("pool",), filters=10),
    ]
    return Graph(tuple(ops))


@pytest.mark.parametrize("density", [1.0, 0.3, 0.0])
def test_deployed_weights(density: float, native: Target, check: Check, answer: Answer) -> None:
    graph = network(native)
    weights = random_weights(graph, seed=5, density=density)
    weights["s.index"] = np.sort(np.random.default_rng(1).permutation(48)[:20]).astype(np.int32)
    artifact = check(graph, target=native, weights=weights)
    images = np.random.default_rng(2).standard_normal((5, 16 * 16)).astype(np.float32)
    expected = [reference_output(graph, weights, image, double=True).reshape(-1) for image in images]
    np.testing.assert_allclose(answer(artifact, images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_taps_come_from_the_weights_not_from_the_counts(native: Target, check: Check) -> None:
    graph = chain(
        (4, 4, 16), sparse_conv("conv", 16, 1, BlockSparsity(native.block_height, (3,) * -(-16 // native.block_height)))
    )
    weights = random_weights(graph, seed=1)
    assert check(graph, target=native, weights=weights).kept_macs == graph.macs
    weights["conv.weight"][:, 4:] = 0.0
    assert check(graph, target=native, weights=weights).kept_macs == graph.macs // 4


UNITS = [  # unit and taps kept of 22 channels x 9 positions: a quad of two channels is the last of each position
    (TapUnit.TAP, (7, 8, 9, 10, 11)),
    (TapUnit.KERNEL, (9, 90, 0, 198, 18)),
    (TapUnit.QUAD, (2, 180, 50, 14, 198)),
]


@pytest.mark.parametrize(("unit", "counts"), UNITS)
def test_device_and_host_make_the_same_weights(
    unit: TapUnit, counts: tuple[int, ...], native: Target, tmp_path: Path, cache_dir: Path, answer: Answer
) -> None:
    """A one-hot image through a sparse convolution reads the device's weights out, bit for bit."""
    height = native.block_height
    kept = counts[: -(-40 // height)]
    graph = chain((5, 5, 22), sparse_conv("conv", 40, 3, BlockSparsity(height, kept, unit)))
    graph = Graph((graph.ops[0], Conv2d(**(vars(graph.ops[1]) | {"activation": Activation.NONE}))))
    artifact = compile_network(graph, target=native, out_dir=tmp_path, cache_dir=cache_dir, seed=9)
    weights = seeded_weights(graph, seed=9)
    images = np.zeros((23, 5, 5, 22), np.float32)
    for channel in range(22):
        images[channel + 1, 2, 2, channel] = 1.0
    zero, *got = answer(artifact, images).reshape(23, 5, 5, 40)
    np.testing.assert_array_equal(zero[2, 2], weights["conv.bias"])
    for channel, output in enumerate(got):
        window = output[1:4, 1:4][::-1, ::-1].transpose(2, 0, 1)  # filters x kh x kw
        expected = weights["conv.bias"][:, None, None] + weights["conv.weight"][:, channel]
        np.testing.assert_array_equal(window, expected)
    alive = weights["conv.weight"] != 0
    for block, count in enumerate(kept):
        taps = alive[block * height : (block + 1) * height].any(axis=0).reshape(22, 9)
        assert taps.sum() == count
        if unit is TapUnit.KERNEL:
            assert (taps.all(axis=1) | ~taps.any(axis=1)).all()
        if unit is TapUnit.QUAD:
            for first in range(0, 22, 4):
                quad = taps[first : first + 4]
                assert (quad.all(axis=0) | ~quad.any(axis=0)).all()


@pytest.mark.parametrize("unit", TapUnit)
def test_whole_units_seeded_and_given(unit: TapUnit, native: Target, check: Check) -> None:
    graph = chain(
        (7, 9, 22),
        sparse_conv("a", 2 * native.block_height + 3, 3, None),
        sparse_conv("b", 37, 3, None),
    )
    sparse = sparsify(graph, 2.5, native.block_height, layers=["a", "b"], unit=unit)
    check(sparse, target=native)
    found, weights = prune_weights(
        graph, random_weights(graph, seed=4), 2.5, native.block_height, layers=["a", "b"], unit=unit
    )
    assert found == sparse
    assert check(found, target=native, weights=weights).kept_macs == sparse.kept_macs


def test_seeded_activations_keep_their_size_through_depth_and_sparsity(native: Target, check: Check) -> None:
    height = native.block_height
    kept = BlockSparsity(height, (29,) * (64 // height))
    ops = [sparse_conv(f"conv{i}", 64, 3, kept) for i in range(20)]
    output = np.array(check(chain((8, 8, 64), *ops), target=native).expected_output)
    assert 0.01 < np.sqrt((output**2).mean()) < 10.0
