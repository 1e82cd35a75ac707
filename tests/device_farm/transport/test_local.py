from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_farm.compiler.target import NEON_FP16, Precision, host_target
from device_farm.errors import DeviceGone, Refused
from device_farm.testing.build import build_device_program
from device_farm.testing.tiny import tiny_artifact
from device_farm.testing.transport_conformance import TransportConformance
from device_farm.transport.base import Transport
from device_farm.transport.local import LocalTransport


class TestLocalConforms(TransportConformance):
    @pytest.fixture
    def transport(self, tmp_path: Path) -> Iterator[Transport]:
        local = LocalTransport(tmp_path / "device")
        yield local
        local.close()


def test_facts_describe_this_machine(tmp_path: Path) -> None:
    facts = LocalTransport(tmp_path, cpu=0).facts()
    assert (facts.model, facts.target, facts.cpu, facts.emulated) == ("local", host_target().name, 0, False)
    assert facts.details["cores"] == os.cpu_count()
    assert facts.details["features"]


def test_a_precision_that_this_machine_lacks_is_refused(tmp_path: Path) -> None:
    has_it = LocalTransport(tmp_path).facts().details["half_arithmetic"]
    assert has_it == ("asimdhp" in LocalTransport(tmp_path).facts().details["features"])
    if has_it:
        facts = LocalTransport(tmp_path, precision=Precision.FP16).facts()
        assert facts.target == NEON_FP16.name
        return
    with pytest.raises(Refused, match=r"this machine: precision fp16 .*choose precision fp32"):
        LocalTransport(tmp_path / "device", precision=Precision.FP16)
    assert not (tmp_path / "device").exists()


def test_a_core_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cores 0 to \d+, got 4096"):
        LocalTransport(tmp_path, cpu=4096)


def test_a_vanished_directory_is_a_device_gone(tmp_path: Path) -> None:
    local = LocalTransport(tmp_path / "device")
    shutil.rmtree(tmp_path / "device")
    with pytest.raises(DeviceGone, match="directory"):
        local.run(["x"], timeout_s=1)


def test_a_failed_push_leaves_nothing_behind(tmp_path: Path) -> None:
    local = LocalTransport(tmp_path / "device")
    (tmp_path / "device" / "name").mkdir()  # a directory in the way
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(Refused, match="cannot push"):
        local.push(tmp_path / "file", "name")
    assert [path.name for path in (tmp_path / "device").iterdir()] == ["name"]


def test_fresh_programs_start_while_other_threads_fork(tmp_path: Path) -> None:
    """A fork in another thread holds a just written program open: without care that is 'text file busy'."""
    program = build_device_program(tmp_path, triple=host_target().triple)
    local = LocalTransport(tmp_path / "device")
    failures: list[Exception] = []

    def push_and_run(thread: int) -> None:
        try:
            for i in range(12):
                local.push(program, f"p-{thread}-{i}")
                assert local.run([f"p-{thread}-{i}", "exit", "5"], timeout_s=20).exit_status == 5
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=push_and_run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


_PARENT = """
import sys
from pathlib import Path
from device_farm.transport.local import LocalTransport
local = LocalTransport(Path(sys.argv[1]))
local.push(Path(sys.argv[2]), "artifact")
print("running", flush=True)
local.run(["artifact", "bench", "--die-with-stdin"], timeout_s=60)
"""


def test_the_runner_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path, host_target(), defines=("FAULT_HANG",))
    command = [sys.executable, "-c", _PARENT, str(tmp_path / "device"), str(artifact.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()}) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"running\n"
        program = tmp_path / "device" / "artifact"
        _wait_until(lambda: bool(_processes_of(program)), "the runner starts")
        parent.send_signal(signal.SIGKILL)
    _wait_until(lambda: not _processes_of(program), "the runner ends")


def _processes_of(program: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "exe").readlink() == program:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def _wait_until(condition: object, what: str) -> None:
    assert callable(condition)
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, f"not within 5 s: {what}"
        time.sleep(0.01)
