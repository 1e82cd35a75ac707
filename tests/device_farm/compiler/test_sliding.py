"""Depthwise convolutions by pairs of rows: where they go so, and that their answers are right."""

from __future__ import annotations

import pytest

import device_farm.compiler.fusing as fusing
from device_farm.compiler import AVX2, AVX512, NEON, Target
from device_farm.compiler.graph import NO_PADDING, Activation, Conv2d, DepthwiseConv2d, Padding, Shape
from device_farm.compiler.sliding import band_cut
from device_farm.compiler.strides import Layout
from device_farm.compiler.testing import Check, chain, random_weights

SAME = Padding.same(3)


def layout(height: int, width: int, channels: int = 64) -> Layout:
    return Layout(Shape(height, width, channels), NO_PADDING, channels)


def depthwise(*, kernel: int = 3, stride: int = 1, dilation: int = 1) -> DepthwiseConv2d:
    return DepthwiseConv2d("d", ("x",), kernel=(kernel, kernel), stride=(stride, stride), dilation=(dilation, dilation))


def test_no_row_belongs_to_pairs_of_two_threads() -> None:
    assert band_cut(depthwise(), layout(2, 14), 14, AVX512).row_pairs
    assert not band_cut(depthwise(), layout(2, 13), 13, AVX512).row_pairs  # the last band is shifted back by one row
    assert not band_cut(depthwise(), layout(3, 14), 12, AVX512).row_pairs
    assert band_cut(depthwise(), layout(7, 7), 7, AVX512).row_pairs  # one band: one thread computes all of its rows


def test_only_where_additions_cost_less() -> None:
    band = layout(2, 14)
    assert not any(band_cut(depthwise(), band, 14, target).row_pairs for target in (AVX2, NEON))
    others = depthwise(stride=2), depthwise(dilation=2), depthwise(kernel=5)
    assert not any(band_cut(op, band, 14, AVX512).row_pairs for op in others)


def test_tiles_divide_a_row_evenly() -> None:
    widths = {14: 14, 28: 14, 56: 14, 112: 14, 7: 7, 17: 9}
    for width, columns in widths.items():
        tiling = band_cut(depthwise(), layout(2, width), 2, AVX512).tiling
        assert (tiling.tile_rows, tiling.tile_columns) == (2, columns)


@pytest.mark.parametrize("width", [1, 2, 15, 19])
def test_answers(width: int, native: Target, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "LEAST_FLOATS", 0)
    graph = chain(
        (6, width, 20),
        Conv2d("in", (), filters=16, activation=Activation.RELU),
        Conv2d("expand", (), filters=40, activation=Activation.HARD_SWISH),
        DepthwiseConv2d("d", (), padding=SAME, activation=Activation.RELU6),
        Conv2d("project", (), filters=16),
    )
    assert len(fusing.fused_blocks(graph)) == 1
    check(graph, target=native)
    check(graph, target=native, weights=random_weights(graph, seed=1))
