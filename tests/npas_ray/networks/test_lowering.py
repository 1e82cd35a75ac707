from __future__ import annotations

import subprocess
import sys

import pytest

from device_farm.compiler.graph import Add, BlockSparsity, Conv2d, Graph, Op, Pool2d, ScatterChannels, TapUnit
from npas_ray.networks.backbone import DIGITS, make_backbone
from npas_ray.networks.lowering import lower
from npas_ray.space.choices import Architecture

BACKBONE = make_backbone("test", input_shape=(3, 15, 15), stem=(32, 1), blocks=((32, 1), (64, 2)), classes=10)


def lowered(*texts: str, block_height: int = 16) -> Graph:
    return lower(BACKBONE, Architecture.from_json(list(texts)), block_height=block_height)


def op(graph: Graph, name: str) -> Op:
    return next(op for op in graph.ops if op.name == name)


def test_names_and_order() -> None:
    graph = lowered("3x3dw+1x1", "1x1+3x3dw+1x1")
    assert [op.name for op in graph.ops] == [
        *("input", "stem", "block0.depthwise", "block0.project"),
        *("block1.pool", "block1.resize", "block1.expand", "block1.depthwise", "block1.project", "pool", "fc"),
    ]
    assert op(graph, "block1.project").inputs == ("block1.depthwise", "block1.resize")
    assert graph.shapes["block1.project"] == (8, 8, 64)


def test_blocks_say_what_they_keep() -> None:
    graph = lowered("3x3/block-punched@3", "1x1/block-based@2.5")
    first, second = op(graph, "block0.conv"), op(graph, "block1.conv")
    assert isinstance(first, Conv2d) and isinstance(second, Conv2d)
    assert first.sparsity == BlockSparsity(16, (96,) * 2)  # of 288 taps
    assert second.sparsity == BlockSparsity(16, (13,) * 4)  # of 32 channels
    other = op(lowered("3x3/block-punched@3", "1x1/block-based@2.5", block_height=8), "block0.conv")
    assert isinstance(other, Conv2d)
    assert other.sparsity == BlockSparsity(8, (96,) * 4)
    kernels = op(lowered("3x3/kernel-block@3", "skip"), "block0.conv")
    assert isinstance(kernels, Conv2d)
    assert kernels.sparsity == BlockSparsity(16, (99,) * 2, TapUnit.KERNEL)  # 11 of 32 channels


def test_pruned_filters_are_gone_and_scattered_beside_the_shortcut() -> None:
    graph = lowered("3x3/filter@2", "skip")
    conv = op(graph, "block0.conv")
    assert isinstance(conv, Conv2d)
    assert (conv.filters, conv.sparsity, len(conv.inputs)) == (16, None, 1)
    assert isinstance(op(graph, "block0.scatter"), ScatterChannels)
    add = op(graph, "block0.add")
    assert isinstance(add, Add)
    assert add.inputs == ("block0.scatter", "stem")


def test_an_inverted_residual_is_narrower_inside() -> None:
    graph = lowered("1x1+3x3dw+1x1/filter@5", "skip")
    assert graph.shapes["block0.expand"].channels == graph.shapes["block0.depthwise"].channels == 26  # of 128
    assert graph.shapes["block0.project"].channels == 32


def test_a_skip_of_one_shape_is_nothing_at_all() -> None:
    graph = lowered("skip", "skip")
    assert [op.name for op in graph.ops] == ["input", "stem", "block1.pool", "block1.resize", "pool", "fc"]
    pool = op(graph, "block1.pool")
    assert isinstance(pool, Pool2d)
    assert tuple(pool.padding) == (0, 0, 1, 1)  # 15 pixels are odd


def test_unstructured_runs_dense() -> None:
    assert lowered("3x3/unstructured@5", "skip").key == lowered("3x3", "skip").key


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["3x3"], "1 layers, backbone 'test' 2"),
        (["1x1", "fc"], "not an operator of a block"),
        (["1x1/pattern@3", "1x1"], "patterns are of 3x3 kernels"),
        (["skip/filter@2", "1x1"], "filter pruning has no meaning for skip"),
    ],
)
def test_nonsense_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lowered(*texts)


def test_the_embedded_network_has_work_to_prune() -> None:
    dense = lower(DIGITS, Architecture.from_json(["3x3"] * 7), block_height=32)
    pruned = lower(DIGITS, Architecture.from_json(["3x3/block-punched@10"] * 7), block_height=32)
    assert 5e6 < dense.macs < 2e7
    assert dense.kept_macs / pruned.kept_macs > 8
    assert all(block.out_channels % 32 == 0 for block in DIGITS.blocks)


def test_lowering_needs_no_torch() -> None:
    """Whatever measures a candidate should not wait for torch's import."""
    code = "import sys, npas_ray.networks.lowering; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
