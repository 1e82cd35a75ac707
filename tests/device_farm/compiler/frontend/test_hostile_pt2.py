""".pt2 files that are damaged, or made to do harm: each is one clear error, and nothing of them is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from device_farm.compiler.frontend.loading import load_network
from device_farm.compiler.graph import Shape
from device_farm.errors import InvalidGraph, UnsupportedOperator

pytestmark = pytest.mark.usefixtures("load_in_forks")


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
