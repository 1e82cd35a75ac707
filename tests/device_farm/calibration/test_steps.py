from __future__ import annotations

from device_farm.calibration.steps import StepShape, describe
from device_farm.compiler import AVX512
from device_farm.compiler.graph import (
    Activation,
    Add,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Padding,
    Shape,
)

SAME = Padding.same(3)


def stack(*kernels: int, sparsity: BlockSparsity | None = None, channels: int = 64, size: int = 8) -> Graph:
    """Convolutions of these kernels, the first one pruned."""
    ops: list[Input | Conv2d] = [Input("input", (), Shape(size, size, channels))]
    for number, kernel in enumerate(kernels):
        ops.append(
            Conv2d(
                f"conv{number}", (ops[-1].name,), channels, (kernel, kernel), (1, 1), Padding.same(kernel),
                sparsity=None if number else sparsity,
            )
        )  # fmt: skip
    return Graph(tuple(ops))


def by_name(graph: Graph) -> dict[str, StepShape]:
    return {step.name: step for step in describe(graph, AVX512)}


def test_equal_steps_have_one_key_wherever_they_stand() -> None:
    steps = by_name(stack(1, 1, 1, 3))
    assert steps["conv0"].key == steps["conv1"].key
    assert steps["conv1"].key != steps["conv2"].key  # whose reader needs a border
    assert steps["conv3"].kind == "conv2d/winograd"
    assert steps["conv0"].weight_bytes == by_name(stack(1))["conv0"].weight_bytes


def test_taps_size_and_channels_are_in_the_key() -> None:
    keys = {
        by_name(graph)["conv0"].key
        for graph in (
            stack(3, sparsity=BlockSparsity(32, (288, 288))),
            stack(3, sparsity=BlockSparsity(32, (192, 192))),
            stack(3),
            stack(3, size=16),
            stack(3, channels=128),
        )
    }
    assert len(keys) == 5


def test_bytes_and_work_are_those_of_the_kernels() -> None:
    sparse = by_name(stack(1, sparsity=BlockSparsity(32, (16, 16))))["conv0"]
    assert sparse.kept_macs == 8 * 8 * 16 * 64
    assert sparse.image_bytes == 2 * 4 * 8 * 8 * 64
    words = 16 * 64 + 2 * 16 + 3 + 64  # weights, taps, pointers, bias; each in whole cache lines
    assert 4 * words <= sparse.weight_bytes <= 4 * words + 4 * 64


def test_a_fused_block_is_one_step() -> None:
    graph = Graph(
        (
            Input("input", (), Shape(28, 28, 32)),
            Conv2d("expand", ("input",), 192, activation=Activation.RELU),
            DepthwiseConv2d("depthwise", ("expand",), (3, 3), (1, 1), SAME, activation=Activation.RELU),
            Conv2d("project", ("depthwise", "input"), 32),
            Add("add", ("project", "input")),
        )
    )
    fused, add = describe(graph, AVX512)
    assert fused.name == "expand + depthwise + project"
    assert fused.kind.startswith("inverted_residual/")
    assert fused.image_bytes == 2 * 4 * 28 * 28 * 32  # what is read, the residual too, and written; nothing between
    assert fused.calls > 30
    assert add.image_bytes == 3 * 4 * 28 * 28 * 32
