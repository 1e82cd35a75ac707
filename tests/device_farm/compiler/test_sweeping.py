"""What killed compilations leave is swept; what somebody works on is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_farm.compiler import sweeping
from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.sweeping import scratch, sweep

# A compilation that is killed in the middle: a linker's files in its folder, a file half written beside it.
WORKER = """
import sys, time
from pathlib import Path
from device_farm.compiler.sweeping import scratch
parent = Path(sys.argv[1])
with scratch(parent, ".linking-") as linking, scratch(parent, ".making-") as making:
    (linking / "0.o").write_bytes(b"x" * 1000)
    (making / "zig-local").mkdir()
    (parent / (".npas_conv_" + "0" * 24 + ".objec-abcd1234")).write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)
"""


def make_old(folder: Path) -> None:
    for entry in folder.iterdir():
        os.utime(entry, (time.time() - 3600,) * 2)


def test_leftovers_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    with worker:
        assert worker.stdout.readline() == b"ready\n"
        left = sorted(entry.name.partition("-")[0] for entry in tmp_path.iterdir())
        assert left == [".linking", ".making", f".npas_conv_{'0' * 24}.objec"]
        make_old(tmp_path)
        assert sweep(tmp_path) == 1  # the file; the folders are old, and locked by a process that lives
        worker.send_signal(signal.SIGKILL)
    assert sweep(tmp_path, min_age_s=7200) == 0  # too young: a linker that was started may still write there
    assert sweep(tmp_path) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_next_compilation_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_swept", {})
    (tmp_path / ".making-dead").mkdir()
    make_old(tmp_path)

    def write(path: Path) -> None:
        path.write_bytes(b"object")

    ObjectCache(tmp_path).get_or_make("k", write)
    assert [entry.name for entry in tmp_path.iterdir()] == ["k.object"]


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    kept = [".hidden", ".linking", "linking-1", ".making-file", f"{'a' * 32}", f"{'a' * 32}.json", "k.object"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / ".linking-link").symlink_to(outside)
    make_old(tmp_path)
    assert sweep(tmp_path) == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([*kept, "outside", ".linking-link"])
    assert sweep(tmp_path / "missing") == 0


def test_a_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path, ".making-"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
