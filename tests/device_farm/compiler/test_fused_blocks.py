"""Inverted residuals by bands of rows: which blocks run so, and that the answers do not change."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_farm.compiler.fusing as fusing
from device_farm.compiler import AVX512, NEON, Graph, Target, compile_network
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import (
    Activation,
    Add,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Input,
    Op,
    Padding,
    Shape,
)
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.testing import Check, chain, random_weights

RELU, RELU6, NONE = Activation.RELU, Activation.RELU6, Activation.NONE


@pytest.fixture(autouse=True)
def fuse_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it does not pay, and in bands on maps that would be one."""
    monkeypatch.setattr(fusing, "LEAST_FLOATS", 0)
    monkeypatch.setattr(fusing, "WHOLE_PIXELS", 9)


def block(
    shape: tuple[int, int, int],
    expanded: int,
    *,
    stride: int = 1,
    kernel: int = 3,
    padding: Padding | None = None,
    residual: bool = False,
    activation: Activation = RELU6,
    sparsity: tuple[BlockSparsity | None, BlockSparsity | None] = (None, None),
    filters: int | None = None,
) -> Graph:
    """A stem, which makes the block's input an inner one, the block, and a reader that wants a border around it."""
    same = Padding.same(kernel) if padding is None else padding
    return chain(
        shape,
        Conv2d("in", (), filters=shape[2], activation=RELU),
        Conv2d("expand", ("in",), filters=expanded, activation=activation, sparsity=sparsity[0]),
        DepthwiseConv2d(
            "dw", (), kernel=(kernel, kernel), stride=(stride, stride), padding=same, activation=activation
        ),
        Conv2d("project", ("dw", "in") if residual else ("dw",), filters=filters or shape[2], sparsity=sparsity[1]),
        DepthwiseConv2d("reader", ("project",), padding=Padding.same(3)),
    )


BLOCKS = {
    "stride 1": block((16, 16, 24), 96),
    "stride 2": block((16, 16, 24), 144, stride=2, filters=40),
    "residual": block((8, 12, 20), 120, residual=True),
    "odd": block((13, 11, 5), 33, residual=True, activation=NONE),
    "odd, stride 2": block((9, 7, 17), 50, stride=2, filters=9, activation=RELU),
    "one row": block((1, 6, 8), 40),
    "5x5": block((9, 10, 16), 80, kernel=5, residual=True),
    "uneven padding": block((8, 9, 16), 64, padding=Padding(0, 1, 2, 0), stride=2),
    "wide": block((6, 7, 16), 400),  # chunks of more than one block, and a last one that is not full
    "sparse": block(
        (10, 11, 16), 80, sparsity=(BlockSparsity(32, (3, 0, 16)), BlockSparsity(16, (11,))), residual=True
    ),
    "small sparse blocks": block((7, 8, 24), 40, sparsity=(BlockSparsity(8, (5, 9, 0, 24, 1)), None), stride=2),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_seeded_and_shipped_weights_give_the_same_answers_as_the_reference(
    name: str, native: Target, check: Check
) -> None:
    graph = BLOCKS[name]
    assert [fused.expand.name for fused in fused_blocks(graph)] == ["expand"]
    check(graph, target=native)
    check(graph, target=native, weights=random_weights(graph, seed=1, density=0.5))


@pytest.mark.parametrize("name", ["residual", "stride 2", "wide"])
def test_a_map_that_is_one_band(name: str, native: Target, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "WHOLE_PIXELS", 256)  # all chunks then use one ring
    monkeypatch.setattr(fusing, "RING_FLOATS", 0)
    graph = BLOCKS[name]
    (fused,) = fused_blocks(graph)
    assert fused.rows == graph.shapes["project"].height and fused.chunk < fused.expand.filters
    check(graph, target=native)


def two_blocks() -> Graph:
    """A stem as expansion, then a residual block; their rings use one memory."""
    same: dict[str, Any] = {"padding": Padding.same(3), "activation": RELU6}
    return Graph(
        (
            Input("x", (), Shape(19, 17, 3)),
            Conv2d("stem", ("x",), filters=36, kernel=(3, 3), stride=(2, 2), **same),
            DepthwiseConv2d("dw0", ("stem",), **same),
            Conv2d("p0", ("dw0",), filters=12),
            Conv2d("e1", ("p0",), filters=72, activation=RELU6, sparsity=BlockSparsity(32, (2, 5, 12))),
            DepthwiseConv2d("dw1", ("e1",), **same),
            Conv2d("p1", ("dw1", "p0"), filters=12),
            Add("sum", ("p1", "p0")),
        )
    )


def test_blocks_in_a_row(native: Target, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    import device_farm.compiler.layout as layout_module

    graph = two_blocks()
    assert len(fused_blocks(graph)) == 2
    check(graph, target=native)
    monkeypatch.setattr(layout_module, "SHARING_THRESHOLD", 0)
    check(graph, target=native, seed=2)


@pytest.mark.qemu
def test_blocks_on_neon(check: Check) -> None:
    graph = two_blocks()
    check(graph, target=NEON)
    check(graph, target=NEON, weights=random_weights(graph, seed=3, density=0.5))


def test_a_fused_block_is_one_step_with_the_names_of_its_layers(native: Target, check: Check) -> None:
    artifact = check(two_blocks(), target=native)
    command = [str(artifact.path), "bench", "--profile", "--max-time-s", "0.01", "--min-time-s", "0.001"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    steps = {step["name"]: step for step in json.loads(done.stdout)["profile"]["steps"]}
    assert list(steps) == ["stem + dw0 + p0", "e1 + dw1 + p1", "sum"]
    assert steps["e1 + dw1 + p1"]["kind"] == "inverted_residual"
    assert sum(step["macs"] for step in steps.values()) == two_blocks().macs


def test_fusing_can_be_left_out_and_is_another_artifact(tmp_path: Path, cache_dir: Path) -> None:
    options: dict[str, Any] = {"target": AVX512, "out_dir": tmp_path, "cache_dir": cache_dir}
    fused = compile_network(BLOCKS["stride 1"], **options)
    plain = compile_network(BLOCKS["stride 1"], **options, fuse=False)
    assert fused.key != plain.key
    assert np.allclose(fused.expected_output, plain.expected_output)


def test_what_others_read_is_not_fused() -> None:
    same: dict[str, Any] = {"padding": Padding.same(3)}

    def graph(*ops: Op) -> Graph:
        return Graph(
            (
                Input("x", (), Shape(8, 8, 16)),
                Conv2d("expand", ("x",), filters=16),
                DepthwiseConv2d("dw", ("expand",), **same),
                *ops,
            )
        )

    assert fused_blocks(graph(Conv2d("project", ("dw",), filters=16)))
    assert not fused_blocks(graph(Conv2d("project", ("dw", "expand"), filters=16)))
    assert not fused_blocks(graph(Conv2d("project", ("dw",), filters=16), Add("sum", ("project", "dw"))))
    assert not fused_blocks(graph(Conv2d("project", ("dw",), filters=16, kernel=(3, 3), **same)))
    assert not fused_blocks(graph(Conv2d("project", ("dw",), filters=16, stride=(2, 2))))
    assert not fused_blocks(graph())


def test_inner_outputs_have_no_place_and_the_input_lives_until_the_block_is_done() -> None:
    graph = BLOCKS["residual"]
    memory = plan_memory(graph, AVX512, fused_blocks(graph))
    assert set(memory.offsets) == {op.name for op in graph.ops} - {"expand", "dw"}
    whole = chain((64, 64, 24), *graph.ops[1:4], Conv2d("project", ("dw",), filters=24), Conv2d("out", (), filters=8))
    memory = plan_memory(whole, AVX512, fused_blocks(whole))
    assert memory.shared
    ends = {name: memory.offsets[name] + memory.layouts[name].elements for name in memory.offsets}
    first, second = sorted(("in", "project"), key=memory.offsets.__getitem__)
    assert ends[first] <= memory.offsets[second]
    assert max(ends.values()) <= memory.scratch < memory.elements


def test_small_blocks_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert not fused_blocks(block((8, 8, 16), 64))
    (large,) = fused_blocks(block((56, 56, 24), 144))
    assert (large.rows, large.chunk) == (4, 32)
    (shared,) = fused_blocks(block((56, 56, 24), 144), threads=4)  # 14 bands of four would not be as many for each
    assert shared.rows == 2
    (late,) = fused_blocks(block((7, 7, 160), 960))
    assert (late.rows, late.chunk) == (7, 64)
