"""The table from invented times: rows, ratios, shares of peak."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from device_farm.bench.report import Report, make_report
from device_farm.bench.timing import Peak, Timed, Timings
from device_farm.bench.variants import Scheme, Variant, check_rates, make_variants
from device_farm.compiler.frontend import Imported
from device_farm.compiler.graph import Activation, Conv2d, DepthwiseConv2d, Graph, Input, Padding, Pool2d, Shape
from device_farm.errors import InvalidGraph
from device_farm.measurement.types import DeviceFacts, Measurement

SAME = Padding.same(3)
GRAPH = Graph(
    (
        Input("image", (), Shape(8, 8, 3)),
        Conv2d("stem", ("image",), filters=32, kernel=(3, 3), stride=(2, 2), padding=SAME, activation=Activation.RELU6),
        Conv2d("expand", ("stem",), filters=64),
        DepthwiseConv2d("dw", ("expand",), padding=SAME),
        Conv2d("project", ("dw", "stem"), filters=32),
        Conv2d("last", ("project",), filters=32, kernel=(3, 3), padding=SAME, dilation=(1, 1)),
        Pool2d("pool", ("last",), kernel=(4, 4)),
        Conv2d("fc", ("pool",), filters=10),
    )
)
FACTS = DeviceFacts("local-here", "local", "x86_64-avx512", cpu=3, details={"processor": "P", "features": ["f"] * 99})
FUSED = ("stem", "expand + dw + project", "last", "pool", "fc")
ALONE = ("stem", "expand", "dw", "project", "last", "pool", "fc")


def measurement(latency_ms: float, steps_ms: tuple[tuple[str, float], ...], *, quiet: bool = True) -> Measurement:
    return Measurement(
        "key", FACTS, "protocol", latency_ms, 0.9 * latency_ms, 1.1 * latency_ms, 100, {"p50": latency_ms}, 1e-6,
        steps_ms, {"quiet": quiet},
    )  # fmt: skip


def weights(graph: Graph = GRAPH) -> dict[str, Any]:
    shapes = {op.name: (op.filters, op.taps(graph.shapes[op.inputs[0]])) for op in graph.ops if isinstance(op, Conv2d)}
    return {f"{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()}


def report() -> Report:
    dense, pruned = make_variants(Imported(GRAPH, weights()), Scheme.BLOCK_PUNCHED, [1, 4], block_height=32)
    slow = measurement(4.0, tuple((name, 0.7) for name in FUSED))
    fast = measurement(2.0, tuple((name, 0.4) for name in FUSED), quiet=False)
    timed = (
        Timed(dense, (slow, fast, None)),
        Timed(pruned, (measurement(1.0, tuple((name, 0.1) for name in ALONE)), None, measurement(0.5, ()))),
    )
    return make_report(Timings(FACTS, "x86_64-avx512", Peak(90.0, 100.0), timed), network="n", scheme="block-punched")


def test_rows_are_layers_that_are_whole_steps_in_every_variant() -> None:
    rows = report().rows
    assert [row.layers for row in rows] == [
        ("stem",), ("expand", "dw", "project"), ("last",), ("pool",), ("fc",)
    ]  # fmt: skip
    assert [row.operator for row in rows] == ["3x3/2 relu6", "1x1 + dw 3x3 + 1x1 + sum", "3x3", "global average", "fc"]
    block = rows[1]
    assert block.input_shape == (4, 4, 32) and block.output_shape == (4, 4, 32)
    assert block.cells["dense"].ms == pytest.approx(0.4)  # of the round that disturbed it least
    assert block.cells["4x"].ms == pytest.approx(0.3)  # three steps of 0.1
    assert block.cells["4x"].speedup == pytest.approx(0.4 / 0.3)
    macs = 16 * (32 * 64 * 2 + 64 * 9)
    assert block.cells["dense"].kept_macs == macs
    assert block.cells["dense"].gflops == pytest.approx(2 * macs / 0.4e-3 / 1e9)
    assert block.cells["dense"].share_of_peak == pytest.approx(2 * macs / 0.4e-3 / 1e9 / 100)
    assert block.cells["4x"].kept_macs == 16 * (8 * 64 + 16 * 32 + 64 * 9)


def test_totals_prefer_quiet_rounds_and_pair_them_for_the_ratio() -> None:
    dense, pruned = report().totals
    assert dense.latency_ms == 4.0 and dense.quiet  # the faster round was disturbed
    assert pruned.latency_ms == 0.5
    assert pruned.speedup == pytest.approx(4.0)  # the one round that has both
    assert pruned.achieved_rate == pytest.approx(GRAPH.macs / pruned.kept_macs)
    assert 1.5 < pruned.achieved_rate < 4  # stem and depthwise stay dense


def test_the_json_has_everything_and_no_list_of_features() -> None:
    data = report().to_json()
    assert data["device"]["details"] == {"processor": "P"}
    assert data["peak"] == {"now_gflops": 90.0, "known_gflops": 100.0, "gflops": 100.0}
    assert [total["label"] for total in data["totals"]] == ["dense", "4x"]
    assert data["layers"][1]["cells"]["4x"]["ms"] == pytest.approx(0.3)
    assert len(data["measurements"]["dense"]) == 2


def labels(variants: tuple[Variant, ...]) -> list[tuple[str, int]]:
    return [(variant.label, variant.graph.kept_macs) for variant in variants]


def test_sparsity_that_the_weights_came_with_is_a_column_of_its_own() -> None:
    given = weights()
    given["last.weight"][:, ::2] = 0  # every second tap
    made = make_variants(Imported(GRAPH, given), Scheme.BLOCK_BASED, [2, 1, 2], block_height=32)
    assert [label for label, _ in labels(made)] == ["dense", "as given", "2x"]
    assert made[0].graph.macs - made[1].graph.kept_macs == 16 * 32 * 32 * 9 // 2


def test_patterns_prune_3x3_layers_alone() -> None:
    _, pruned = make_variants(Imported(GRAPH, weights()), Scheme.PATTERN, [2.25], block_height=32)
    kept = {op.name: op.sparsity for op in pruned.graph.ops if isinstance(op, Conv2d)}
    assert kept["last"] is not None and kept["last"].kept == (32 * 4,)
    assert {name for name, sparsity in kept.items() if sparsity is None} == {"stem", "expand", "project", "fc"}
    with pytest.raises(InvalidGraph, match=r"its rate is 1 \(dense\), or 2\.25 or more; got 2"):
        check_rates(Scheme.PATTERN, [1, 2])


def test_filters_make_layers_narrower() -> None:
    _, pruned = make_variants(Imported(GRAPH, weights()), Scheme.FILTER, [2], block_height=32)
    widths = {op.name: op.filters for op in pruned.graph.ops if isinstance(op, Conv2d)}
    assert widths == {"stem": 16, "expand": 32, "project": 16, "last": 16, "fc": 10}


def test_an_unfinished_round_is_left_out() -> None:
    timed = dataclasses.replace(report().timings.timed[0], rounds=(None, measurement(3.0, ())))
    assert timed.best.latency_ms == 3.0
