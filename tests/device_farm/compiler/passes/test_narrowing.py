from __future__ import annotations

import pytest

from device_farm.compiler.graph import (
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Multiply,
    Op,
    Padding,
    Pool2d,
    Shape,
    SliceChannels,
)
from device_farm.compiler.passes.narrowing import narrow
from device_farm.errors import InvalidGraph


def widths(*ops: Op, rate: float = 2) -> dict[str, int]:
    graph = narrow(Graph((Input("x", (), Shape(8, 8, 4)), *ops)), rate)
    return {op.name: graph.shapes[op.name].channels for op in graph.ops}


def conv(name: str, source: str, filters: int, *residual: str, groups: int = 1) -> Conv2d:
    return Conv2d(name, (source, *residual), filters=filters, groups=groups)


def test_a_chain_shrinks_but_for_image_and_output() -> None:
    assert widths(conv("a", "x", 15), conv("b", "a", 8), conv("c", "b", 10)) == {"x": 4, "a": 8, "b": 4, "c": 10}


def test_what_is_added_multiplied_or_filtered_depthwise_shrinks_together() -> None:
    got = widths(
        conv("a", "x", 12), DepthwiseConv2d("dw", ("a",), padding=Padding.same(3)),
        Pool2d("pool", ("dw",), kernel=(8, 8)),
        conv("gate", "pool", 12), Multiply("se", ("dw", "gate")), conv("b", "se", 12, "a"), Add("sum", ("b", "se")),
        conv("out", "sum", 3), rate=3,
    )  # fmt: skip
    assert got == {"x": 4, "a": 4, "dw": 4, "pool": 4, "gate": 4, "se": 4, "b": 4, "sum": 4, "out": 3}


def test_a_sum_with_the_image_keeps_its_width() -> None:
    assert widths(conv("a", "x", 6), conv("b", "a", 4, "x"), conv("out", "b", 3)) == {"x": 4, "a": 3, "b": 4, "out": 3}


def test_joined_channels_shrink_with_their_parts() -> None:
    got = widths(
        conv("a", "x", 8), conv("b", "x", 6), Concat("ab", ("a", "b")), DepthwiseConv2d("dw", ("ab",)),
        conv("out", "dw", 3),
    )  # fmt: skip
    assert got == {"x": 4, "a": 4, "b": 3, "ab": 7, "dw": 7, "out": 3}


def test_joined_channels_that_meet_others_keep_their_width() -> None:
    got = widths(
        conv("a", "x", 8), conv("b", "x", 6), Concat("ab", ("a", "b")), conv("c", "a", 14), Add("sum", ("ab", "c")),
        conv("out", "sum", 3),
    )  # fmt: skip
    assert got == {"x": 4, "a": 8, "b": 6, "ab": 14, "c": 14, "sum": 14, "out": 3}


def test_groups_and_numbered_channels_keep_their_width() -> None:
    got = widths(
        conv("a", "x", 8), conv("grouped", "a", 8, groups=2), conv("b", "grouped", 8), SliceChannels("s", ("b",), 2, 4),
        conv("c", "s", 8), conv("out", "c", 3),
    )  # fmt: skip
    assert got == {"x": 4, "a": 8, "grouped": 8, "b": 8, "s": 4, "c": 4, "out": 3}


def test_a_rate_below_one_is_refused() -> None:
    with pytest.raises(InvalidGraph, match=r"got 0\.5"):
        widths(conv("a", "x", 8), rate=0.5)
