"""Files that are damaged, or made to do harm: each is one clear error, in bounded time and memory."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from device_farm.compiler.frontend.loading import load_network
from device_farm.compiler.graph import Shape
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


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    os.symlink("/dev/zero", tmp_path / "zero.onnx")
    os.symlink("loop.pt2", tmp_path / "loop.pt2")
    for name, message in [
        ("folder.onnx", "it is a directory"),
        ("pipe.onnx", "it is no regular file"),
        ("zero.onnx", "it is no regular file"),
        ("loop.pt2", "cannot be read: Too many levels"),
        ("missing.onnx", "there is no such file"),
        ("missing.pt2", "there is no such file"),
    ]:
        with pytest.raises(InvalidGraph, match=message):
            load_network(str(tmp_path / name))


VALID = network().SerializeToString()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
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


# --- .pt2 -------------------------------------------------------------------------------------------------------------


class Sample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.relu(self.norm(self.conv(x))).chunk(2, 1)
        y: torch.Tensor = self.head(torch.cat([right, left], 1).mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "sample.pt2"
    torch.manual_seed(0)
    torch.export.save(torch.export.export(Sample().eval(), (torch.zeros(1, 3, 8, 8),)), path)
    return path


Entries = dict[str, bytes]


def rewritten(program: Path, folder: Path, change: Callable[[Entries], None], method: int = zipfile.ZIP_STORED) -> Path:
    """The program with changed entries; their names are those behind the root folder."""
    with zipfile.ZipFile(program) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(entries)
    path = folder / "changed.pt2"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(f"sample/{name}", content)
    return path


def edit(entries: Entries, name: str, change: Callable[[Any], None]) -> None:
    data = json.loads(entries[name])
    change(data)
    entries[name] = json.dumps(data).encode()


MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def test_a_program_is_read_and_agrees_with_torch(program: Path) -> None:
    loaded = load_network(str(program))
    assert loaded.checked_with == "torch"
    assert loaded.source_error is not None and loaded.source_error < 1e-6
    assert loaded.imported.graph.input.shape == Shape(8, 8, 3)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def target(name: str) -> Callable[[Entries], None]:
    def change(data: Any) -> None:
        data["graph_module"]["graph"]["nodes"][0]["target"] = name

    return lambda entries: edit(entries, MODEL, change)


def extent(value: Any) -> Callable[[Entries], None]:
    def change(data: Any) -> None:
        data["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][2] = value

    return lambda entries: edit(entries, MODEL, change)


def weight(**changes: Any) -> Callable[[Entries], None]:
    return lambda entries: edit(entries, WEIGHTS, lambda data: data["config"]["conv.weight"].update(changes))


def weight_meta(**changes: Any) -> Callable[[Entries], None]:
    return lambda entries: edit(
        entries, WEIGHTS, lambda data: data["config"]["conv.weight"]["tensor_meta"].update(changes)
    )


def whole(spec: str) -> Callable[[Entries], None]:
    def change(data: Any) -> None:
        data["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    return lambda entries: edit(entries, MODEL, change)


TREE = '[1, {"type": "collections.namedtuple", "context": "\\"os.system\\"", "children_spec": []}]'
PROGRAMS: dict[str, tuple[Callable[[Entries], None], str]] = {
    "another function": (target("torch.serialization.os.system"), "'torch.serialization.os.system' is no plain operat"),
    "another library": (target("torch.ops.prims.add.default"), "is no plain operator of torch"),
    "evil expression": (extent({"as_expr": {"expr_str": "__import__('os').mkdir('evil')"}}), "a dynamic shape"),
    "evil tree": (whole(TREE), "an object of its own"),
    "pickled weight": (weight(use_pickle=True), "is pickled, and nothing is unpickled here"),
    "weight elsewhere": (weight(path_name="../../models/model.json"), "no entry"),
    "giant weight": (weight_meta(sizes=[{"as_int": 1 << 40}] * 4), "truncated"),
    "negative stride": (weight_meta(strides=[{"as_int": -9}] * 4), "truncated"),
    "weight beyond its entry": (weight_meta(storage_offset={"as_int": 100}), "truncated"),
    "complex weight": (weight_meta(dtype=10), "an unknown type"),
    "short weight": (lambda entries: entries.update({"data/weights/weight_0": b"123"}), "truncated"),
    "no model": (lambda entries: entries.__delitem__(MODEL), "0 exported programs"),
    "no weights": (lambda entries: entries.__delitem__(WEIGHTS), "no entry 'data/weights/model_weights_config.json'"),
    "deep nesting": (lambda entries: entries.update({MODEL: b"[" * 10**6}), "is not JSON"),
    "not a graph": (lambda entries: entries.update({MODEL: b"[]"}), "not a program of torch.export"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_is_one_clear_error(
    name: str, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, message = PROGRAMS[name]
    monkeypatch.chdir(tmp_path)
    path = rewritten(program, tmp_path, change)
    with pytest.raises((InvalidGraph, UnsupportedOperator), match=message) as raised:
        load_network(str(path))
    assert len(str(raised.value)) < 1000
    assert [entry.name for entry in tmp_path.iterdir()] == ["changed.pt2"]


def test_what_a_pickle_would_do_is_not_done(program: Path, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))

    def change(entries: Entries) -> None:
        entries["data/sample_inputs/model.pt"] = bomb
        entries["data/constants/custom_obj_0"] = bomb
        entries["data/aotinductor/model/wrapper.so"] = b"\x7fELF"

    assert load_network(str(rewritten(program, tmp_path, change))).imported.graph.macs > 0
    assert not (tmp_path / "exploded").exists()


def test_a_zip_bomb_and_other_archives(program: Path, tmp_path: Path) -> None:
    def swell(entries: Entries) -> None:
        entries["data/weights/weight_0"] = bytes(1 << 28)

    bomb = rewritten(program, tmp_path, swell, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(InvalidGraph, match="is compressed, which torch never does"):
        load_network(str(bomb))
    for content in (b"", b"not a zip", program.read_bytes()[:1000]):
        bomb.write_bytes(content)
        with pytest.raises(InvalidGraph, match=r"not a \.pt2 file"):
            load_network(str(bomb))
    torch.save(Sample().state_dict(), bomb)
    with pytest.raises(InvalidGraph, match="0 exported programs"):
        load_network(str(bomb))


# --- functions --------------------------------------------------------------------------------------------------------

NETS = """
import os, sys, torch
from torch import nn
def good(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
def raising(): raise ValueError("no weights")
def leaving(): sys.exit(3)
def dying(): os.kill(os.getpid(), 9)
def number(): return 3
def needs(depth): return nn.Identity()
def hungry(): return nn.Parameter(torch.zeros(1 << 42))
def half(): return good().half()
def two(): return nn.Bilinear(2, 2, 2)
def nan():
    module = nn.Conv2d(3, 4, 1)
    nn.init.constant_(module.weight, float("nan"))
    return module
class Wrong(nn.Module):
    def forward(self, x): raise RuntimeError("the image is wrong")
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raising", r"ValueError: no weights \(nets\.py:5\)"),
        ("leaving", r"SystemExit: 3"),
        ("dying", r"ended the process that did it \(ended by SIGKILL\)"),
        ("number", "expected a function that returns a torch.nn.Module; got int"),
        ("needs", "missing 1 required positional argument: 'depth'"),
        ("hungry", "memory|RuntimeError"),
        ("half", "is torch.float16, expected torch.float32"),
        ("two", "could not trace Bilinear"),
        ("nan", "hold NaN"),
        ("Wrong", "the image is wrong"),
        ("goood", "has no 'goood'; did you mean 'good'?"),
        ("good.x", "has no 'x'"),
    ],
)
def test_functions_that_give_no_network(function: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    with pytest.raises((InvalidGraph, UnsupportedOperator), match=message):
        load_network(f"{tmp_path}/nets.py:{function}", Shape(8, 8, 3))


def test_a_module_in_training_mode_is_taken_as_it_answers(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    loaded = load_network(f"{tmp_path}/nets.py:good", Shape(8, 8, 3))
    assert [op.kind for op in loaded.imported.graph.ops] == ["input", "conv2d"]
    assert loaded.source_error is not None and loaded.source_error < 1e-6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.nets:make", "No module named 'nowhere'"),
        ("weights.pth", "holds weights at best"),
        ("nets.py", "name the function"),
        ("missing.py:make", "missing.py: there is no such file"),
        ("network", "expected an .onnx file.*there is no such file"),
        (".", "it is a directory"),
        ("", "expected an .onnx file"),
        ("a\nb:c", "expected an .onnx file"),
    ],
)
def test_names_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        load_network(text)
