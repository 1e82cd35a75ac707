"""What `load_network` is told to load: names that are none, and functions that give no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_farm.compiler.frontend.loading import load_network
from device_farm.compiler.graph import Shape
from device_farm.errors import InvalidGraph, UnsupportedOperator

pytestmark = pytest.mark.usefixtures("load_in_forks")

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
