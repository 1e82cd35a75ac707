from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Op,
    Padding,
    Shape,
)
from device_farm.compiler.passes import drop_dead, fuse
from device_farm.compiler.passes.fusion import compose

IMAGE = Input("input", (), Shape(6, 6, 4))


def conv(name: str, source: str, filters: int = 4, kernel: int = 3, **fields: Any) -> Conv2d:
    return Conv2d(name, (source,), filters, (kernel, kernel), padding=Padding.same(kernel), **fields)


def affine(name: str, source: str, **fields: Any) -> DepthwiseConv2d:
    return DepthwiseConv2d(name, (source,), (1, 1), **fields)


def random_weights(graph: Graph) -> dict[str, Any]:
    """float64 weights for every convolution."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {}
    for op in graph.ops:
        channels = graph.shapes[op.inputs[0]].channels if op.inputs else 0
        if isinstance(op, Conv2d):
            weights[f"{op.name}.weight"] = rng.standard_normal((op.filters, channels, *op.kernel))
            weights[f"{op.name}.bias"] = rng.standard_normal(op.filters)
        elif isinstance(op, DepthwiseConv2d):
            weights[f"{op.name}.weight"] = rng.standard_normal((channels, 1, *op.kernel))
            weights[f"{op.name}.bias"] = rng.standard_normal(channels)
    return weights


def run(graph: Graph, weights: dict[str, Any], image: Any) -> Any:
    """Plain loops over windows, NHWC, float64: slow, and obviously right."""
    values: dict[str, Any] = {}
    for op in graph.ops:
        if isinstance(op, Input):
            values[op.name] = image
            continue
        y = values[op.inputs[0]]
        if isinstance(op, Conv2d | DepthwiseConv2d):
            y = _convolve(op, y, weights[f"{op.name}.weight"], weights[f"{op.name}.bias"])
        if len(op.inputs) == 2:
            y = y + values[op.inputs[1]]
        values[op.name] = _ACTIVATIONS[getattr(op, "activation", Activation.NONE)](y)
    return values[graph.output.name]


_ACTIVATIONS: dict[Activation, Any] = {
    Activation.NONE: lambda y: y,
    Activation.RELU: lambda y: np.maximum(y, 0),
    Activation.RELU6: lambda y: np.clip(y, 0, 6),
    Activation.HARD_SIGMOID: lambda y: np.clip(y + 3, 0, 6) / 6,
    Activation.HARD_SWISH: lambda y: y * np.clip(y + 3, 0, 6) / 6,
    Activation.SIGMOID: lambda y: 1 / (1 + np.exp(-y)),
    Activation.SWISH: lambda y: y / (1 + np.exp(-y)),
}


def _convolve(op: Conv2d | DepthwiseConv2d, x: Any, weight: Any, bias: Any) -> Any:
    p, (sy, sx), (ky, kx) = op.padding, op.stride, op.kernel
    x = np.pad(x, ((p.top, p.bottom), (p.left, p.right), (0, 0)))
    rows, columns = (x.shape[0] - ky) // sy + 1, (x.shape[1] - kx) // sx + 1
    y = np.empty((rows, columns, len(weight)))
    for r in range(rows):
        for c in range(columns):
            window = x[r * sy : r * sy + ky, c * sx : c * sx + kx].transpose(2, 0, 1)  # channels x kh x kw
            if isinstance(op, Conv2d):
                y[r, c] = np.tensordot(weight, window, 3) + bias
            else:
                y[r, c] = (weight[:, 0] * window).sum(axis=(1, 2)) + bias
    return y


def fused(*ops: Op) -> Graph:
    """Fuse, and check that the function is the same."""
    graph = Graph((IMAGE, *ops))
    weights = random_weights(graph)
    result, left = fuse(graph, weights)
    image = np.random.default_rng(1).standard_normal(IMAGE.shape) * 3
    np.testing.assert_allclose(run(result, left, image), run(graph, weights, image), rtol=1e-12, atol=1e-12)
    names = {op.name for op in result.ops if isinstance(op, Conv2d | DepthwiseConv2d)}
    assert left.keys() == {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    return result


def shown(graph: Graph) -> list[tuple[str, ...]]:
    return [(op.name, *op.inputs) for op in graph.ops[1:]]


def test_an_activation_moves_into_the_operator_before_it() -> None:
    graph = fused(conv("a", "input"), Activate("r", ("a",), Activation.RELU6), affine("d", "r"), Activate("s", ("d",)))
    assert [getattr(op, "activation", None) for op in graph.ops[1:]] == ["relu6", "relu"]


def test_an_activation_stays_where_somebody_reads_the_value_before_it() -> None:
    graph = fused(conv("a", "input"), Activate("r", ("a",)), conv("b", "r"), Add("s", ("b", "a")))
    assert shown(graph) == [("a", "input"), ("r", "a"), ("b", "r", "a")]


def test_an_activation_at_the_input_stays() -> None:
    assert shown(fused(Activate("r", ("input",)), conv("a", "r"))) == [("r", "input"), ("a", "r")]


@pytest.mark.parametrize("first", Activation)
@pytest.mark.parametrize("second", Activation)
def test_activations_compose(first: Activation, second: Activation) -> None:
    graph = fused(conv("a", "input"), Activate("r", ("a",), first), Activate("s", ("r",), second))
    both = compose(first, second)
    assert both is compose(second, first)
    assert len(graph.ops) == (3 if both is None else 2)
    assert (both is None) == (Activation.NONE not in (first, second) and not {first, second} <= {"relu", "relu6"})


def test_a_sum_becomes_the_residual_of_the_later_convolution() -> None:
    graph = fused(conv("a", "input"), conv("b", "input"), Add("s", ("a", "b")), Activate("r", ("s",)), conv("c", "r"))
    assert shown(graph) == [("a", "input"), ("b", "input", "a"), ("c", "b")]


def test_a_convolution_waits_for_a_residual_that_is_computed_after_it() -> None:
    graph = fused(conv("a", "input"), affine("d", "input", activation=Activation.RELU), Add("s", ("a", "d")))
    assert shown(graph) == [("d", "input"), ("a", "input", "d")]


@pytest.mark.parametrize(
    "ops",
    [
        (conv("a", "input"), Activate("r", ("a",)), Add("s", ("r", "input"))),  # the activation comes first
        (conv("a", "input"), Add("s", ("a", "a"))),  # read twice
        (conv("a", "input"), Add("s", ("a", "input")), Add("t", ("s", "a"))),  # read elsewhere
        (affine("a", "input"), Add("s", ("a", "input"))),  # a depthwise convolution has no residual
        (conv("a", "input"), Add("s", ("a", "input")), conv("b", "s"), Add("t", ("b", "s")), Add("u", ("t", "input"))),
    ],
)
def test_sums_that_cannot_be_fused_stay(ops: tuple[Op, ...]) -> None:
    assert any(isinstance(op, Add) for op in fused(*ops).ops)


def test_a_chain_of_residual_blocks() -> None:
    graph = fused(
        conv("a", "input"), Add("s", ("input", "a")), Activate("r", ("s",)),
        conv("b", "r"), Add("t", ("b", "r")), Activate("q", ("t",), Activation.RELU6),
    )  # fmt: skip
    assert shown(graph) == [("a", "input", "input"), ("b", "a", "a")]


@pytest.mark.parametrize("before", [conv("a", "input", 5), DepthwiseConv2d("a", ("input",), padding=Padding.same(3))])
def test_scales_behind_a_convolution_are_folded_into_it(before: Op) -> None:
    graph = fused(before, affine("x", "a"), affine("y", "x"), Activate("r", ("y",)))
    assert shown(graph) == [("a", "input")]


@pytest.mark.parametrize("behind", [conv("a", "x", 5, kernel=1), DepthwiseConv2d("a", ("x",), (3, 3))])
def test_scales_before_a_convolution_without_border_are_folded_into_it(behind: Op) -> None:
    assert shown(fused(affine("x", "input"), behind)) == [("a", "input")]


def test_a_shift_does_not_pass_a_zero_border() -> None:
    assert shown(fused(affine("x", "input"), conv("a", "x"))) == [("x", "input"), ("a", "x")]


def test_a_scale_does_not_pass_an_activation_or_a_second_reader() -> None:
    stays = affine("x", "input", activation=Activation.RELU)
    assert shown(fused(stays, conv("a", "x", kernel=1))) == [("x", "input"), ("a", "x")]
    graph = fused(affine("x", "input"), conv("a", "x", kernel=1), Add("s", ("a", "x")))
    assert shown(graph) == [("x", "input"), ("a", "x", "x")]


def test_a_border_on_its_own_joins_the_convolution_behind_it() -> None:
    graph = Graph((IMAGE, affine("pad", "input", padding=Padding(0, 0, 1, 2)), conv("a", "pad")))
    weights = random_weights(graph) | {"pad.weight": np.ones((4, 1, 1, 1)), "pad.bias": np.zeros(4)}
    result, left = fuse(graph, weights)
    assert result.ops[1:] == (Conv2d("a", ("input",), 4, (3, 3), padding=Padding(1, 1, 2, 3)),)
    image = np.random.default_rng(1).standard_normal(IMAGE.shape)
    np.testing.assert_allclose(run(result, left, image), run(graph, weights, image), rtol=1e-12)


def test_a_border_behind_a_convolution_stays() -> None:
    graph = fused(conv("a", "input"), affine("pad", "a", padding=Padding(1, 1, 1, 1)))
    assert shown(graph) == [("a", "input"), ("pad", "a")]


def test_dead_operators_are_dropped_and_the_output_stays_last() -> None:
    graph = Graph((IMAGE, conv("a", "input"), conv("dead", "a"), Activate("deader", ("dead",)), conv("b", "a")))
    assert shown(drop_dead(graph)) == [("a", "input"), ("b", "a")]
    assert drop_dead(Graph((IMAGE,))) == Graph((IMAGE,))


def test_a_dead_reader_does_not_stop_fusion() -> None:
    graph = fused(conv("a", "input"), conv("dead", "a"), Activate("r", ("a",)))
    assert shown(graph) == [("a", "input")]


def test_the_caller_keeps_graph_and_weights() -> None:
    graph = Graph((IMAGE, conv("a", "input"), affine("x", "a")))
    weights = random_weights(graph)
    before = {key: value.copy() for key, value in weights.items()}
    fuse(graph, weights)
    assert weights.keys() == before.keys()
    assert all(np.array_equal(weights[key], before[key]) for key in before)
