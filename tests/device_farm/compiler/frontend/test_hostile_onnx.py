"""ONNX files that are damaged, or made to do harm: each is one clear error, in bounded time and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from device_farm.compiler.frontend.loading import load_network
from device_farm.errors import FarmError, InvalidGraph, UnsupportedOperator

pytestmark = pytest.mark.usefixtures("load_in_forks")
node = helper.make_node


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def model(
    *nodes: onnx.NodeProto,
    shape: tuple[Any, ...] | None = (1, 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("y",),
    inputs: tuple[str, ...] = ("x",),
    **weights: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def conv(**attributes: Any) -> onnx.NodeProto:
    return node("Conv", ["x", "w"], ["y"], name="stem", **attributes)


def network() -> onnx.ModelProto:
    return model(
        node("Conv", ["x", "w1", "b1"], ["c1"], name="stem", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["a1"], name="relu"),
        node("GlobalAveragePool", ["a1"], ["g"], name="pool"),
        node("Flatten", ["g"], ["f"], name="flatten"),
        node("Gemm", ["f", "w2"], ["y"], name="head", transB=1),
        w1=normal(6, 3, 3, 3), b1=normal(6), w2=normal(4, 6),
    )  # fmt: skip


def declared(name: str, dims: list[int], data: bytes = b"", kind: int = TensorProto.FLOAT) -> TensorProto:
    return TensorProto(name=name, dims=dims, data_type=kind, raw_data=data)


def external(location: str, **entries: str) -> TensorProto:
    tensor = TensorProto(name="w", dims=[4, 3, 1, 1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def condition() -> onnx.NodeProto:
    body = helper.make_graph(
        [node("Identity", ["x"], ["z"])], "body", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    return node("If", ["flag"], ["y"], name="choice", then_branch=body, else_branch=body)


GIANT = "1073741824x1073741824"
HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], type[FarmError], str]] = {
    "giant weight": (
        lambda: model(conv(), w=declared("w", [1 << 30, 1 << 30], b"1234")), InvalidGraph,
        rf"tensor 'w': {GIANT} elements would be \d+ bytes, 4 are there",
    ),
    "giant empty weight": (lambda: model(conv(), w=declared("w", [1 << 40, 3, 1, 1])), InvalidGraph, "0 are there"),
    "giant image": (
        lambda: model(conv(), shape=(1, 3, 1 << 20, 1 << 20), w=normal(4, 3, 1, 1)), InvalidGraph,
        "1048576x1048576x3, more than 1 GiB",
    ),
    "giant border": (
        lambda: model(conv(pads=[1 << 20] * 4), w=normal(4, 3, 1, 1)), InvalidGraph,
        "layer 'stem': an activation of .*more than 1 GiB",
    ),
    "giant constant": (
        lambda: model(
            node("ConstantOfShape", ["s"], ["w"], name="giant"), conv(), s=np.array([1 << 20, 3, 1 << 10, 1 << 10])
        ), FarmError, "GiB|giant|stem",
    ),
    "much work": (
        lambda: model(conv(pads=[50] * 4), shape=(1, 64, 1900, 1900), w=np.zeros((64, 64, 33, 33), np.float32)),
        InvalidGraph, "billion multiply-adds a pass",
    ),
    "negative extent": (lambda: model(conv(), w=declared("w", [-4, 3, 1, 1])), InvalidGraph, "negative extents"),
    "negative image": (lambda: model(conv(), shape=(1, 3, -8, 8), w=normal(4, 3, 1, 1)), InvalidGraph, "at least 1"),
    "empty image": (lambda: model(conv(), shape=(1, 0, 8, 8), w=normal(4, 3, 1, 1)), InvalidGraph, "at least 1"),
    "no filters": (lambda: model(conv(), w=np.zeros((0, 3, 1, 1), np.float32)), FarmError, "layer 'stem'"),
    "no channels": (lambda: model(conv(), w=np.zeros((4, 0, 1, 1), np.float32)), FarmError, "layer 'stem'"),
    "no kernel": (lambda: model(conv(), w=np.zeros((4, 3, 0, 0), np.float32)), FarmError, "stem"),
    "kernel too large": (lambda: model(conv(), w=normal(4, 3, 9, 9)), FarmError, "stem: a window"),
    "stride zero": (lambda: model(conv(strides=[0, 0]), w=normal(4, 3, 1, 1)), FarmError, "layer 'stem'"),
    "negative border": (lambda: model(conv(pads=[-1] * 4), w=normal(4, 3, 1, 1)), FarmError, "stem: .*at least 0"),
    "no groups": (lambda: model(conv(group=0), w=normal(4, 3, 1, 1)), FarmError, "layer 'stem'"),
    "two groups of three channels": (lambda: model(conv(group=2), w=normal(4, 1, 1, 1)), FarmError, "layer 'stem'"),
    "weight of another width": (lambda: model(conv(), w=normal(4, 5, 1, 1)), FarmError, "layer 'stem'"),
    "weight of three dimensions": (lambda: model(conv(), w=normal(4, 3, 1)), FarmError, "layer 'stem'"),
    "NaN": (
        lambda: model(conv(), w=np.full((4, 3, 1, 1), np.nan, np.float32)), InvalidGraph, "layer 'stem': .*hold NaN"
    ),
    "infinity": (
        lambda: model(conv(), w=np.full((4, 3, 1, 1), np.inf, np.float32)), InvalidGraph, "layer 'stem': .*infinity"
    ),
    "overflow": (
        lambda: model(conv(), node("Conv", ["y", "w"], ["z"], name="n"), outputs=("z",), shape=(1, 4, 4, 4),
                      w=np.full((4, 4, 1, 1), 1e38, np.float32)), InvalidGraph, "answers NaN or infinity",
    ),
    "float64 weight": (lambda: model(conv(), w=np.zeros((4, 3, 1, 1))), FarmError, "float|dtype|stem"),
    "integer weight": (lambda: model(conv(), w=np.zeros((4, 3, 1, 1), np.int32)), FarmError, "stem"),
    "text weight": (
        lambda: model(conv(), w=TensorProto(name="w", dims=[1], data_type=TensorProto.STRING, string_data=[b"a"])),
        InvalidGraph, "its type is STRING; weights are float32",
    ),
    "unknown type": (lambda: model(conv(), w=declared("w", [1], b"1", 77)), InvalidGraph, "its type is 77"),
    "uint8 image": (
        lambda: model(conv(), kind=TensorProto.UINT8, w=normal(4, 3, 1, 1)), InvalidGraph, "input 'x' is not float32"
    ),
    "cycle": (
        lambda: model(node("Relu", ["b"], ["a"], name="one"), node("Relu", ["a"], ["b"], name="two"), outputs=("a",)),
        InvalidGraph, "layer 'one': reads 'b', which nothing before it makes: .*a cycle",
    ),
    "missing initializer": (lambda: model(conv()), InvalidGraph, "layer 'stem': reads 'w', which nothing before it"),
    "made twice": (
        lambda: model(node("Relu", ["x"], ["y"], name="one"), node("Relu", ["x"], ["y"], name="two")), InvalidGraph,
        "layer 'two': makes 'y' a second time",
    ),
    "output of nobody": (lambda: model(node("Relu", ["x"], ["z"])), InvalidGraph, "the output 'y' is made by no"),
    "several inputs": (
        lambda: model(node("Add", ["x", "z"], ["y"]), inputs=("x", "z")), InvalidGraph, "one image, this one has 2"
    ),
    "several outputs": (
        lambda: model(node("Relu", ["x"], ["y"]), node("Relu", ["y"], ["z"]), outputs=("y", "z")), InvalidGraph,
        "one output, this one has 2: y, z",
    ),
    "batch of 4": (lambda: model(conv(), shape=(4, 3, 8, 8), w=normal(4, 3, 1, 1)), InvalidGraph, "for one image"),
    "dynamic height": (
        lambda: model(conv(), shape=("n", 3, "h", 8), w=normal(4, 3, 1, 1)), InvalidGraph, "npas bench: --input HxWxC"
    ),
    "image without a shape": (lambda: model(conv(), shape=None, w=normal(4, 3, 1, 1)), InvalidGraph, "shape"),
    "image of three dimensions": (lambda: model(node("Relu", ["x"], ["y"]), shape=(3, 8, 8)), InvalidGraph, "float32"),
    "huge name": (
        lambda: model(node("Relu", ["x"], ["y"], name="n" * 10**7)), InvalidGraph, "a name or text of 10000000 char"
    ),
    "huge text": (
        lambda: model(node("Relu", ["x"], ["y"], name="r", note="n" * 10**7)), InvalidGraph, "layer 'r': a name or text"
    ),
    "terminal escape": (lambda: model(node("\x1b[31mRelu", ["x"], ["y"], name="r")), UnsupportedOperator, "layer 'r'"),
    "condition": (
        lambda: model(condition(), flag=np.array(True)), UnsupportedOperator, "layer 'choice': operator 'If' chooses"
    ),
    "only tanh": (
        lambda: model(node("Tanh", ["x"], ["y"], name="t")), UnsupportedOperator, "layer 't': operator 'tanh' has no"
    ),
    "constant output": (
        lambda: model(node("Identity", ["w"], ["y"], name="i"), w=normal(1, 3, 8, 8)), InvalidGraph, "one output"
    ),
    "password file": (lambda: model(conv(), w=external("../../../../etc/passwd")), InvalidGraph, "own folder are read"),
    "absolute path": (lambda: model(conv(), w=external("/etc/passwd")), InvalidGraph, "own folder are read"),
    "folder": (lambda: model(conv(), w=external(".")), InvalidGraph, "own folder are read"),
    "missing data": (lambda: model(conv(), w=external("weights.data")), InvalidGraph, "there is no such file"),
    "offset": (
        lambda: model(conv(), w=external("short.data", offset="40")), InvalidGraph, r"bytes 40\.\.88 .*truncated"
    ),
    "link": (lambda: model(conv(), w=external("link.data")), InvalidGraph, "own folder are read"),
    "pipe": (lambda: model(conv(), w=external("pipe.data")), InvalidGraph, "no regular file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_one_clear_error(name: str, tmp_path: Path) -> None:
    make, kind, message = HOSTILE[name]
    (tmp_path / "short.data").write_bytes(bytes(48))
    (tmp_path / "link.data").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.data")
    path = tmp_path / "network.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(kind, match=message) as raised:
        load_network(str(path))
    assert len(str(raised.value)) < 1000
    assert isinstance(raised.value, InvalidGraph | UnsupportedOperator)  # the user's, not ours


def test_weights_in_a_file_beside_the_model_are_read(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    assert (tmp_path / "a.data").stat().st_size > 0
    loaded = load_network(str(tmp_path / "a.onnx"))
    assert [op.name for op in loaded.imported.graph.ops] == ["input", "stem", "pool", "head"]
    assert loaded.source_error is not None and loaded.source_error < 1e-6


def test_a_network_without_convolutions_is_a_network(tmp_path: Path) -> None:
    path = tmp_path / "pool.onnx"
    pool = node("MaxPool", ["x"], ["y"], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    path.write_bytes(model(pool).SerializeToString())
    assert load_network(str(path)).imported.graph.macs == 0


@pytest.mark.parametrize("cut", [0, 1, 10, 200, 600])
def test_a_truncated_model(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(network().SerializeToString()[:cut])
    with pytest.raises(InvalidGraph, match=r"network\.onnx: not an ONNX model"):
        load_network(str(path))


VALID = network().SerializeToString()


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_bytes_change_it_is_imported_or_refused(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(VALID)
    for place, value in changes:
        content[place] = value
    path = tmp_path_factory.mktemp("fuzz") / "network.onnx"
    path.write_bytes(content)
    said = ""
    try:
        load_network(str(path), timeout_s=60)
    except (InvalidGraph, UnsupportedOperator) as error:
        said = str(error)
    assert "ended the process" not in said
