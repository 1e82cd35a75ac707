from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_farm.compiler.graph import (
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Padding,
    Shape,
    TapUnit,
)
from device_farm.compiler.passes import find_sparsity, kept_taps, prunable, prune_weights, sparsify
from device_farm.compiler.sparsity import Units
from device_farm.errors import InvalidGraph

GRAPH = Graph(
    (
        Input("input", (), Shape(8, 8, 3)),
        Conv2d("stem", ("input",), 12, (3, 3), padding=Padding.same(3)),
        DepthwiseConv2d("depthwise", ("stem",), (3, 3), padding=Padding.same(3)),
        Conv2d("project", ("depthwise",), 10, (1, 1)),
        Conv2d("block", ("project",), 20, (3, 3), padding=Padding.same(3)),
    )
)


def weights(graph: Graph = GRAPH, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for op in graph.ops:
        if isinstance(op, Conv2d):
            shape = (op.filters, graph.shapes[op.inputs[0]].channels, *op.kernel)
            made[f"{op.name}.weight"] = rng.standard_normal(shape).astype(np.float32)
            made[f"{op.name}.bias"] = rng.standard_normal(op.filters).astype(np.float32)
    return made


def sparsity(graph: Graph, name: str) -> BlockSparsity | None:
    (op,) = (op for op in graph.ops if op.name == name)
    assert isinstance(op, Conv2d)
    return op.sparsity


def test_a_uniform_rate_spares_the_stem_and_keeps_exact_counts() -> None:
    graph = sparsify(GRAPH, 5, 8)
    assert prunable(GRAPH) == ("project", "block")
    assert sparsity(graph, "stem") is None
    assert sparsity(graph, "project") == BlockSparsity(8, (3, 3))  # 12 taps / 5
    assert sparsity(graph, "block") == BlockSparsity(8, (18, 18, 18))  # 90 taps / 5
    assert graph.kept_macs == GRAPH.macs - 64 * (10 * (12 - 3) + 20 * (90 - 18))


def test_rates_by_name_and_chosen_layers() -> None:
    graph = sparsify(GRAPH, {"stem": 3.0, "block": 1.0}, 16)
    assert sparsity(graph, "stem") == BlockSparsity(16, (9,))
    assert sparsity(graph, "block") is None
    assert sparsity(graph, "project") is None
    assert sparsify(GRAPH, 1, 8) == GRAPH
    assert sparsity(sparsify(GRAPH, 2, 8, layers=["project"]), "block") is None


@given(taps=st.integers(1, 10_000), rate=st.floats(1, 20))
def test_kept_taps_reach_at_most_the_rate(taps: int, rate: float) -> None:
    kept = kept_taps(taps, rate)
    assert 1 <= kept <= taps
    assert kept >= taps / rate > kept - 1 or math.isclose(kept, taps / rate)


@settings(max_examples=25)
@given(
    rate=st.sampled_from((1.0, 2.0, 2.5, 3.0, 5.0, 7.0, 10.0)),
    height=st.sampled_from((1, 4, 8, 32)),
    seed=st.integers(0, 9),
)
def test_pruned_weights_keep_the_strongest_taps_of_every_block(rate: float, height: int, seed: int) -> None:
    before = weights(seed=seed)
    graph, after = prune_weights(GRAPH, before, rate, height)
    assert graph == sparsify(GRAPH, rate, height)
    assert graph == find_sparsity(GRAPH, after, height)
    for name in prunable(GRAPH):
        old, new = (array[f"{name}.weight"].reshape(len(array[f"{name}.weight"]), -1) for array in (before, after))
        for start in range(0, len(old), height):
            strength = np.square(old[start : start + height]).sum(axis=0)
            live = new[start : start + height].any(axis=0)
            assert live.sum() == kept_taps(len(strength), rate)
            assert strength[live].min() >= strength[~live].max(initial=0)
            assert np.array_equal(new[start : start + height][:, live], old[start : start + height][:, live])
    assert np.array_equal(after["stem.weight"], before["stem.weight"])


def test_pruning_does_not_touch_the_callers_weights() -> None:
    made = weights()
    copy = {key: value.copy() for key, value in made.items()}
    prune_weights(GRAPH, made, 5, 8)
    assert all(np.array_equal(made[key], copy[key]) for key in copy)


def test_sparsity_that_is_in_the_weights_is_found_block_by_block() -> None:
    made = weights()
    made["project.weight"][:8, 5:] = 0
    made["project.weight"][8:, 0] = 0
    made["project.weight"][0, 1] = 0  # one filter alone frees no tap
    graph = find_sparsity(GRAPH, made, 8)
    assert sparsity(graph, "project") == BlockSparsity(8, (5, 11))
    assert sparsity(graph, "block") is None


def test_weights_that_were_zero_before_count_as_lost() -> None:
    made = weights()
    made["project.weight"][:8] = 0
    graph, _ = prune_weights(GRAPH, made, 2, 8)
    assert sparsity(graph, "project") == BlockSparsity(8, (0, 6))


@pytest.mark.parametrize(
    ("rates", "height", "message"),
    [
        (0.5, 8, "a pruning rate is taps before / taps kept, so 1 or more; got 0.5"),
        (float("nan"), 8, "got nan"),
        (float("inf"), 8, "got inf"),
        (2, 0, "got block_height=0"),
        ({"depthwise": 2.0}, 8, "only convolutions can be pruned, and 'depthwise' is none"),
        ({"nowhere": 2.0}, 8, "'nowhere' is none"),
    ],
)
def test_impossible_requests_are_refused(rates: Any, height: int, message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        sparsify(GRAPH, rates, height)
    with pytest.raises(InvalidGraph, match=message):
        prune_weights(GRAPH, weights(), rates, height)


def test_missing_weights_are_named() -> None:
    with pytest.raises(InvalidGraph, match=r"project: there is no 'project.weight'"):
        prune_weights(GRAPH, {}, 2, 8)


def test_whole_kernels_and_quads_are_asked_for() -> None:
    kernels = sparsify(GRAPH, {"project": 5.0, "block": 3.0}, 8, unit=TapUnit.KERNEL)
    assert sparsity(kernels, "project") == BlockSparsity(8, (3, 3), TapUnit.KERNEL)  # 1x1: a kernel is a tap
    assert sparsity(kernels, "block") == BlockSparsity(8, (36, 36, 36), TapUnit.KERNEL)  # 4 of 10 channels
    quads = sparsify(GRAPH, {"block": 3.0}, 8, unit=TapUnit.QUAD)  # 2 quads and a pair of channels, 9 positions
    assert sparsity(quads, "block") == BlockSparsity(8, (30, 30, 30), TapUnit.QUAD)  # 6 of 18 quads, 3 of 9 pairs
    assert Graph.from_json(quads.to_json()) == quads
    assert len({graph.key for graph in (kernels, quads, sparsify(GRAPH, {"block": 3.0}, 8))}) == 3


@settings(max_examples=25)
@given(
    unit=st.sampled_from((TapUnit.KERNEL, TapUnit.QUAD)),
    rate=st.sampled_from((1.0, 2.0, 3.0, 7.0)),
    height=st.sampled_from((1, 8, 32)),
)
def test_pruned_weights_keep_the_strongest_units(unit: TapUnit, rate: float, height: int) -> None:
    before = weights()
    graph, after = prune_weights(GRAPH, before, rate, height, unit=unit)
    assert graph == sparsify(GRAPH, rate, height, unit=unit)
    old, new = before["block.weight"], after["block.weight"]
    for start in range(0, 20, height):
        energy = np.square(old[start : start + height], dtype=np.float64).sum(axis=0)  # channels x kh x kw
        live = (new[start : start + height] != 0).any(axis=0)
        if unit is TapUnit.KERNEL:
            strengths, units = energy.sum(axis=(1, 2)), live.reshape(10, 9)
        else:
            strengths = np.stack([energy[first : first + 4].sum(axis=0) for first in (0, 4)]).reshape(-1)
            units = np.stack([live[0:4], live[4:8]]).transpose(0, 2, 3, 1).reshape(18, 4)
        assert (units.all(axis=1) == units.any(axis=1)).all()
        kept = units.all(axis=1)
        assert strengths[kept].min() >= strengths[~kept].max(initial=0)


@given(
    unit=st.sampled_from(list(TapUnit)),
    channels=st.integers(1, 30),
    positions=st.sampled_from((1, 9, 25)),
    rate=st.floats(1, 20),
)
def test_counts_of_a_rate_are_split_as_they_were_made(
    unit: TapUnit, channels: int, positions: int, rate: float
) -> None:
    units = Units(unit, channels, positions)
    whole, partial = math.ceil(units.whole / rate), math.ceil(units.partial / rate)
    assert units.whole * units.size + units.partial * units.partial_size == channels * positions
    assert units.split(whole * units.size + partial * units.partial_size) == (whole, partial)


@pytest.mark.parametrize(
    ("kept", "unit", "message"),
    [
        ((10,) * 3, TapUnit.KERNEL, r"block: kept counts must be whole units \(kernel, of 9 taps\), got 10"),
        ((7,) * 3, TapUnit.QUAD, r"block: kept counts must be whole units \(quad, of 4 and 2 taps\), got 7"),
        ((99,) * 3, TapUnit.KERNEL, r"block: kept counts must lie in 0..90"),
    ],
)
def test_counts_that_are_no_whole_units_are_refused(kept: tuple[int, ...], unit: TapUnit, message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        Graph((*GRAPH.ops[:-1], Conv2d("block", ("project",), 20, (3, 3), sparsity=BlockSparsity(8, kept, unit))))
