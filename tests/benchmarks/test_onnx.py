from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks._onnx import to_onnx
from benchmarks.peers.onnxruntime import answer
from device_farm.compiler import reference_output, seeded_weights
from device_farm.compiler.frontend import import_onnx
from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Multiply,
    Padding,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
    Shape,
    ShuffleChannels,
    SliceChannels,
    Softmax,
)

SAME = Padding.same(3)
CHANNELS = Graph(
    (
        Input("input", (), Shape(11, 9, 3)),
        ResizeChannels("wider", ("input",), channels=12),
        Pool2d("means", ("wider",), PoolKind.AVERAGE, (2, 2), (1, 1), Padding(0, 1, 1, 0)),
        ResizeChannels("narrower", ("means",), channels=10),
        Conv2d("pixels", ("narrower",), 10, (1, 1)),
        Activate("alone", ("narrower",), Activation.RELU6),
        Activate("also", ("pixels",), Activation.RELU),
        Add("sum", ("alone", "also"), Activation.RELU6),
    )
)
GATES = Graph(
    (
        Input("input", (), Shape(8, 9, 3)),
        Conv2d("stem", ("input",), 12, (3, 3), (1, 1), SAME, activation=Activation.HARD_SWISH),
        DepthwiseConv2d("depthwise", ("stem",), (3, 3), padding=SAME, activation=Activation.SWISH),
        Pool2d("squeeze", ("depthwise",), PoolKind.AVERAGE, (8, 9), (1, 1)),
        Conv2d("inner", ("squeeze",), 4, activation=Activation.SWISH),
        Conv2d("soft", ("inner",), 12, activation=Activation.SIGMOID),
        Conv2d("hard", ("inner",), 12, activation=Activation.HARD_SIGMOID),
        Multiply("excite", ("depthwise", "soft")),
        Multiply("again", ("excite", "hard")),
        SliceChannels("slice", ("stem",), 5, 4),
        Concat("joined", ("again", "slice", "stem")),
        ShuffleChannels("shuffled", ("joined",), 4),
        Conv2d("grouped", ("shuffled",), 14, (3, 3), groups=2),
        Conv2d("head", ("grouped",), 6, (6, 7)),
        Softmax("softmax", ("head",)),
    )
)


def answers(graph: Graph) -> tuple[Any, Any]:
    """ONNX Runtime's output and the reference's, both flat NCHW."""
    weights = seeded_weights(graph, seed=3)
    image = np.random.default_rng(0).standard_normal(graph.input.shape).astype(np.float32)
    expected = reference_output(graph, weights, image).transpose(2, 0, 1)
    return answer(to_onnx(graph, weights), image.transpose(2, 0, 1)[None]).ravel(), expected.ravel()


@pytest.mark.parametrize("name", ["network", "gates", "channels"])
def test_the_model_computes_what_the_graph_computes(name: str, network: Graph) -> None:
    actual, expected = answers({"network": network, "gates": GATES, "channels": CHANNELS}[name])
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_scattered_channels_find_their_places() -> None:
    graph = Graph((Input("image", (), Shape(4, 4, 3)), ScatterChannels("scatter", ("image",), channels=6)))
    weights = {"scatter.index": np.array([1, 2, 5], np.int32)}
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    actual = answer(to_onnx(graph, weights), image)
    assert np.array_equal(actual[:, [1, 2, 5]], image)
    assert not actual[:, [0, 3, 4]].any()


@pytest.mark.parametrize("size", [1, 4])
def test_vectors_leave_as_vectors_and_images_as_images(size: int) -> None:
    graph = Graph((Input("input", (), Shape(4, 4, 3)), Conv2d("conv", ("input",), 5, (5 - size, 5 - size))))
    model = to_onnx(graph, seeded_weights(graph, seed=0))
    dims = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    assert dims == ([1, 5] if size == 1 else [1, 5, 4, 4])


def test_what_is_written_as_onnx_is_imported_as_the_same_graph(network: Graph) -> None:
    graph = Graph(network.ops[:8])
    weights = seeded_weights(graph, seed=0)
    imported = import_onnx(to_onnx(graph, weights))
    assert [(op.kind, op.output_shape(*graph.input_shapes(op))) for op in graph.ops] == [
        (op.kind, imported.graph.shapes[op.name]) for op in imported.graph.ops
    ]
    image = np.random.default_rng(0).standard_normal(graph.input.shape).astype(np.float32)
    np.testing.assert_allclose(
        reference_output(imported.graph, imported.weights, image), reference_output(graph, weights, image), rtol=1e-5
    )
