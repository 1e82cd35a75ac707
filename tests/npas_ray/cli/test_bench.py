"""`npas bench`, from the command line to the table. What files may hold is tested beside the front end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import device_farm
from device_farm.compiler import host_target
from npas_ray.cli import main

T = TypeVar("T")
NETS = """
import torch
from torch import nn
def small():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 64, 1), nn.ReLU6(), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU6(), nn.Conv2d(64, 24, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )
def tanh(): return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh())
def slow():
    import os, pathlib, time
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(300)
def nan():
    module = nn.Conv2d(3, 4, 1)
    nn.init.constant_(module.weight, float("nan"))
    return module
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPAS_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def refuse(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Runs npas bench, which must refuse with exit code 2 and one line; gives it."""
    assert main(["bench", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    [line] = [line for line in said.err.splitlines() if line.startswith("npas: ")]
    return line.removeprefix("npas: error: ")


def test_a_bench_prints_a_table_and_writes_everything(
    nets: Path, capsys: pytest.CaptureFixture[str], load_in_forks: None
) -> None:
    argv = ["bench", "nets.py:small", "--input", "32x32x3", "--rates", "1,4", "--rounds", "1", "--json", "out.json"]
    assert main(argv) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("nets.py:small: 32x32x3, ")
    assert "one thread, peak " in lines[1]
    assert lines[2].startswith("our graph against torch: relative difference ")
    assert any(line.split()[:2] == ["layer", "operator"] for line in lines)
    assert [line.split()[0] for line in lines if line.startswith(("dense", "4x"))] == ["dense", "4x"]
    assert "compiling dense (1/2)" in said.err and "round 1/1: 4x" in said.err

    data = json.loads(Path("out.json").read_text())
    assert data["target"] == host_target().name
    assert data["source_error"] < 1e-6 and data["checked_with"] == "torch"
    names = {op for row in data["layers"] for op in row["layers"]}
    assert names == {"0", "3", "5", "7", "8", "10"}
    for total in data["totals"]:
        assert total["max_relative_error"] < 1e-4
        assert total["ci_low_ms"] <= total["latency_ms"] <= total["ci_high_ms"]
        assert total["kept_macs"] == sum(row["cells"][total["label"]]["kept_macs"] for row in data["layers"])
    assert data["peak"]["gflops"] > 1
    left = {entry.name.partition("-")[0] for entry in (nets / "cache").iterdir() if entry.suffix != ".object"}
    assert left == {"peaks.json"}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["nets.py:small", "--scheme", "blok-punched"],
            "--scheme: expected one of block-punched, block-based",
        ),
        (["nets.py:small", "--rates", "0.5"], "--rates: expected up to 16 numbers of 1 or more"),
        (["nets.py:small", "--rates", "1,x"], "got '1,x'"),
        (["nets.py:small", "--rates", "nan"], "got 'nan'"),
        (["nets.py:small", "--scheme", "pattern", "--rates", "2"], "a pattern keeps 4 of 9 positions"),
        (["nets.py:small", "--device", "pixel"], "expected local, or a phone; got 'pixel', and there is no adb server"),
        (["nets.py:small", "--target", "avx512"], "--target: expected one of x86_64-avx512, x86_64-avx2, aarch64-neon"),
        (["nets.py:small", "--input", "32x32"], "--input: expected height x width x channels, such as 224x224x3"),
        (["nets.py:small", "--input", "0x32x3"], "--input: expected height x width x channels"),
        (["nets.py:small", "--top", "0"], "--top: expected a whole number in 1..1000000; got '0'"),
        (["nets.py:small", "--rounds", "-1"], "--rounds: expected a whole number in 1..100; got '-1'"),
        (["nets.py:small", "--json", "missing/out.json"], "--json: expected a file to write; missing/out.json"),
        (["nets.py:small", "--json", "."], "it is a directory"),
        (["missing.onnx"], "missing.onnx: there is no such file"),
        (["."], "it is a directory"),
        (["nets.py:small"], "a module does not know the size of its image: .*npas bench: --input HxWxC"),
        (["nets.py:smal", "--input", "8x8x3"], "has no 'smal'; did you mean 'small'?"),
        (["nets.py:tanh", "--input", "8x8x3"], "layer '1': operator 'tanh' has no kernel; use ReLU"),
        (["nets.py:nan", "--input", "8x8x3"], "hold NaN"),
        (["random.onnx"], "random.onnx: not an ONNX model"),
        (["random.pt2"], "random.pt2: not a .pt2 file"),
        (["dynamic.onnx"], "has the dynamic shape .*npas bench: --input HxWxC"),
        (["dynamic.onnx", "--input", "8x8x4"], "input_shape asks for"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    argv: list[str], expected: str, nets: Path, capsys: pytest.CaptureFixture[str], load_in_forks: None
) -> None:
    Path("random.onnx").write_bytes(bytes(range(256)) * 40)
    Path("random.pt2").write_bytes(bytes(range(256)) * 40)
    Path("dynamic.onnx").write_bytes(dynamic())
    line = refuse(capsys, *argv)
    assert re.search(expected if ".*" in expected else re.escape(expected), line), line
    assert "\n" not in line and len(line) < 1200
    assert not (nets / "cache").exists()


def dynamic() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="stem")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, "h", "w_"))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def test_a_target_that_the_device_does_not_run(
    nets: Path, capsys: pytest.CaptureFixture[str], load_in_forks: None
) -> None:
    foreign = "x86_64-avx2" if host_target().name == "aarch64-neon" else "aarch64-neon"
    line = refuse(capsys, "nets.py:small", "--input", "8x8x3", "--target", foreign)
    assert line.startswith("--target: local runs ") and line.endswith(f"got '{foreign}'")
    assert not (nets / "cache").exists()


@contextmanager
def started(nets: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """npas bench in a process of its own, without a fork in place of the loading process: as a user starts it."""
    (nets / "tmp").mkdir()
    environment = {
        "PYTHONPATH": str(Path(device_farm.__file__).parents[1]), "PATH": "/usr/bin:/bin", "TMPDIR": str(nets / "tmp")
    }  # fmt: skip
    command = [sys.executable, "-m", "npas_ray", "bench", *argv, "--input", "8x8x3"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `pytest &` has it ignored
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_the_command_in_a_process_of_its_own(nets: Path) -> None:
    with started(nets, "nets.py:tanh") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert err.splitlines()[-1].startswith("npas: error: UnsupportedOperator: layer '1': operator 'tanh'")
    assert list((nets / "tmp").iterdir()) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_bench_leaves_no_process(nets: Path, stop: signal.Signals) -> None:
    with started(nets, "nets.py:slow") as process:
        child = wait_for(lambda: int((nets / "pid").read_text() or 0) if (nets / "pid").exists() else 0)
        process.send_signal(stop)
        process.wait(timeout=30)
        if stop is signal.SIGINT:
            assert process.returncode == 130
            assert process.stderr is not None
            assert process.stderr.read().splitlines()[-1] == "npas: interrupted"
            assert list((nets / "tmp").iterdir()) == []
    assert wait_for(lambda: not Path(f"/proc/{child}").exists())


def wait_for(condition: Callable[[], T], timeout_s: float = 60.0) -> T:
    until = time.monotonic() + timeout_s
    while not (value := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return value
