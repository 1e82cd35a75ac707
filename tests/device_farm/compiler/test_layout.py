"""The memory plan: no two living buffers overlap, borders suffice, and sharing changes no result."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import device_farm.compiler.layout as layout_module
from device_farm.compiler import AVX512, Graph, Target
from device_farm.compiler.graph import Activation, Add, Conv2d, DepthwiseConv2d, Input, Op, Padding, Shape
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.testing import Check


def ladder(height: int, channels: int) -> Graph:
    """Residual blocks with depthwise layers: buffers of different sizes and lifetimes."""
    ops: list[Op] = [Input("x", (), Shape(height, height, 3))]
    last = "x"
    for i in range(4):
        same: dict[str, Any] = {"padding": Padding.same(3), "activation": Activation.RELU}
        ops += [
            Conv2d(f"in{i}", (last,), filters=channels, kernel=(3, 3), **same),
            Conv2d(f"wide{i}", (f"in{i}",), filters=3 * channels, activation=Activation.RELU),
            DepthwiseConv2d(f"dw{i}", (f"wide{i}",), **same),
            Conv2d(f"out{i}", (f"dw{i}", f"in{i}"), filters=channels),
            Add(f"sum{i}", (f"out{i}", f"in{i}")),
        ]
        last = f"sum{i}"
    return Graph(tuple(ops))


def test_living_buffers_do_not_overlap_and_dead_ones_are_reused() -> None:
    graph = ladder(64, 32)
    memory = plan_memory(graph, AVX512)
    assert memory.shared
    names = [op.name for op in graph.ops]
    last_use = {name: max(i for i, op in enumerate(graph.ops) if name in (op.name, *op.inputs)) for name in names}
    last_use["x"] = last_use[names[-1]] = len(names)
    for a, b in itertools.combinations(names, 2):
        if names.index(b) <= last_use[a]:
            first, second = sorted((memory.offsets[n], memory.offsets[n] + memory.layouts[n].elements) for n in (a, b))
            assert first[1] <= second[0], (a, b)
    assert memory.elements < sum(layout.elements for layout in memory.layouts.values()) / 2
    assert all(offset % 16 == 0 for offset in memory.offsets.values())


def test_a_border_is_as_wide_as_the_widest_window_needs() -> None:
    graph = Graph(
        (
            Input("x", (), Shape(10, 12, 4)),
            Conv2d("a", ("x",), filters=4),
            DepthwiseConv2d("b", ("a",), kernel=(5, 5), padding=Padding.same(5)),
            DepthwiseConv2d("c", ("a",), stride=(2, 2), padding=Padding.same(3)),
        )
    )
    layouts = plan_memory(graph, AVX512).layouts
    assert layouts["x"].border == Padding() and layouts["x"].pixel_stride == 4
    assert layouts["a"].border == Padding(2, 2, 2, 2) and layouts["a"].pixel_stride == 16
    stride_two = Graph(
        (Input("x", (), Shape(8, 8, 4)), DepthwiseConv2d("c", ("x",), stride=(2, 2), padding=Padding.same(3)))
    )
    assert plan_memory(stride_two, AVX512).layouts["x"].border == Padding(1, 1, 0, 0)


def test_shared_memory_gives_the_same_answers(native: Target, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = ladder(9, 20)
    assert not plan_memory(graph, native).shared
    monkeypatch.setattr(layout_module, "SHARING_THRESHOLD", 0)
    assert plan_memory(graph, native).shared
    check(graph, target=native)
