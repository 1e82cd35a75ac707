from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from device_farm.compiler.frontend import import_onnx
from device_farm.compiler.graph import Activation, Conv2d, Shape
from device_farm.errors import InvalidGraph, UnsupportedOperator


def model(
    *nodes: onnx.NodeProto, shape: tuple[Any, ...] = (1, 3, 8, 8), opset: int = 17, **weights: Any
) -> onnx.ModelProto:
    """A model of the nodes, from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def network() -> onnx.ModelProto:
    """conv - batch norm - clip - conv + shortcut - relu - max pool - global pool - linear."""
    node = helper.make_node
    return model(
        node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["c1", "gamma", "beta", "mean", "var"], ["n1"], name="norm"),
        node("Clip", ["n1", "zero", "six"], ["a1"], name="clip"),
        node("Conv", ["a1", "w2"], ["c2"], name="block", pads=[1, 1, 1, 1]),
        node("Add", ["a1", "c2"], ["s2"], name="sum"),
        node("Relu", ["s2"], ["a2"], name="relu"),
        node("MaxPool", ["a2"], ["p2"], name="pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["p2"], ["g"], name="global"),
        node("Flatten", ["g"], ["f"], name="flatten"),
        node("Gemm", ["f", "fw", "fb"], ["y"], name="head", transB=1),
        w1=normal(6, 3, 3, 3), b1=normal(6), w2=normal(6, 6, 3, 3), fw=normal(4, 6), fb=normal(4),
        gamma=normal(6), beta=normal(6), mean=normal(6), var=np.abs(normal(6)) + 0.5,
        zero=np.float32(0), six=np.float32(6),
    )  # fmt: skip


def test_a_network_is_imported_with_the_names_of_its_nodes_and_equals_onnx_runtime(
    evaluate: Any, tmp_path: Path
) -> None:
    import onnxruntime

    path = tmp_path / "network.onnx"
    onnx.save(network(), path)
    imported = import_onnx(path)
    assert [op.name for op in imported.graph.ops] == ["input", "stem", "block", "pool", "global", "head"]
    stem, block = imported.graph.ops[1:3]
    assert isinstance(stem, Conv2d) and stem.activation is Activation.RELU6
    assert isinstance(block, Conv2d) and block.inputs == ("stem", "stem") and block.activation is Activation.RELU

    image = normal(1, 3, 8, 8)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": image})
    actual = evaluate(imported.graph, imported.weights, torch.tensor(image)).numpy().reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def gates(reduce: str) -> onnx.ModelProto:
    """hard swish - squeeze and excite - channel shuffle - concat of halves - softmax."""
    node = helper.make_node
    return model(
        node("Conv", ["x", "w1"], ["c1"], name="stem", pads=[1, 1, 1, 1]),
        node("HardSwish", ["c1"], ["h1"], name="hswish"),
        node("GlobalAveragePool", ["h1"], ["g"], name="squeeze"),
        node("Conv", ["g", "w2"], ["c2"], name="fc1"),
        node("Sigmoid", ["c2"], ["s2"], name="sigmoid"),
        node("Mul", ["c2", "s2"], ["a2"], name="swish"),
        node("Conv", ["a2", "w3"], ["c3"], name="fc2"),
        node("HardSigmoid", ["c3"], ["gate"], name="hsigmoid", alpha=1 / 6, beta=0.5),
        node("Mul", ["gate", "h1"], ["scaled"], name="excite"),
        node("Split", ["scaled", "halves"], ["left", "right"], name="halve", axis=1),
        node("Concat", ["right", "left", "left"], ["joined"], name="join", axis=1),
        node("Reshape", ["joined", "grouped"], ["five"], name="group"),
        node("Transpose", ["five"], ["turned"], name="turn", perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["turned", "flat"], ["shuffled"], name="ungroup"),
        node(reduce, ["shuffled"], ["r"], name="pool"),
        node("Flatten", ["r"], ["f"], name="flatten"),
        node("Softmax", ["f"], ["y"], name="softmax", axis=1),
        w1=normal(8, 3, 3, 3), w2=normal(4, 8, 1, 1), w3=normal(8, 4, 1, 1), halves=np.array([4, 4]),
        grouped=np.array([1, 3, 4, 8, 8]), flat=np.array([1, 12, 8, 8]),
    )  # fmt: skip


def test_gates_and_channels_are_imported_and_equal_onnx_runtime(evaluate: Any) -> None:
    import onnxruntime

    proto = gates("GlobalMaxPool")
    imported = import_onnx(proto)
    assert [(op.name, getattr(op, "activation", "-")) for op in imported.graph.ops] == [
        ("input", "-"), ("stem", "hard_swish"), ("squeeze", "-"), ("fc1", "swish"), ("fc2", "hard_sigmoid"),
        ("excite", "none"), ("halve", "-"), ("halve#2", "-"), ("join", "-"), ("turn", "-"), ("pool", "-"),
        ("softmax", "-"),
    ]  # fmt: skip
    image = normal(1, 3, 8, 8)
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": image})
    actual = evaluate(imported.graph, imported.weights, torch.tensor(image)).numpy().reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_input_shape_fixes_a_dynamic_input() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu")
    with pytest.raises(InvalidGraph, match=r"dynamic shape \[1, 3, 'height', 8\]; give input_shape"):
        import_onnx(model(relu, shape=("batch", 3, "height", 8)))
    imported = import_onnx(model(relu, shape=("batch", 3, "height", 8)), Shape(4, 8, 3))
    assert imported.graph.input.shape == Shape(4, 8, 3)
    assert import_onnx(model(relu, shape=("batch", 3, 8, 8))).graph.input.shape == Shape(8, 8, 3)
    with pytest.raises(InvalidGraph, match=r"has the shape \[1, 3, 8, 8\], input_shape asks for \[1, 3, 4, 8\]"):
        import_onnx(model(relu), Shape(4, 8, 3))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Tanh", ["x"], ["y"], name="gate"), "layer 'gate': operator 'tanh' has no kernel"),
        (
            helper.make_node("NonsenseOp", ["x"], ["y"], name="odd"),
            "layer 'odd': .* does not know the operator NonsenseOp",
        ),
        (
            helper.make_node("Transpose", ["x"], ["y"], name="t", perm=[0, 2, 3, 1]),
            "layer 't': operator 'permute_dims'",
        ),
        (helper.make_node("Softmax", ["x"], ["y"], name="s", axis=3), "layer 's': .*runs over axis 3"),
    ],
)
def test_an_operator_without_a_kernel_names_its_node(node: onnx.NodeProto, message: str) -> None:
    with pytest.raises(UnsupportedOperator, match=message):
        import_onnx(model(node))


def test_what_is_no_model_of_one_image_is_refused(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(InvalidGraph, match=r"broken\.onnx: not an ONNX model"):
        import_onnx(broken)
    with pytest.raises(InvalidGraph, match="there is no such file"):
        import_onnx(tmp_path / "missing.onnx")
    with pytest.raises(InvalidGraph, match="opset 9; export it with opset 11 or newer"):
        import_onnx(model(relu, opset=9))
    with pytest.raises(InvalidGraph, match=r"expected float32 \(1, channels, height, width\)"):
        import_onnx(model(relu, shape=(2, 3, 8, 8)))
