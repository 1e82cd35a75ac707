"""What tests of both packages share."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from device_farm.errors import InvalidGraph

# The same examples every time, and a busy machine is no failure. `--hypothesis-profile=explore` looks for new ones.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("npas", _patient, derandomize=True)
settings.register_profile("explore", _patient, max_examples=2000)
settings.load_profile("npas")

# Programs that tests start inherit what `nohup make test` ignores, and some tests hang up on them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_libm = ctypes.CDLL("libm.so.6")
_DEFAULT_ENVIRONMENT = ctypes.c_void_p(-1)  # FE_DFL_ENV


def pytest_runtest_setup() -> None:
    """Denormals are numbers again: a library built with -ffast-math (torch.compile makes some) rounds them to zero for
    the thread that loads it, and hypothesis refuses to draw floats from then on."""
    _libm.fesetenv(_DEFAULT_ENVIRONMENT)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels of all tests of a session, of those in other processes of pytest-xdist too."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "kernels"


@pytest.fixture
def load_in_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are loaded in forks of this process instead of new ones: the same child, without seconds of imports."""
    import onnx  # noqa: F401
    import torch
    import tvm.relax.frontend.onnx  # noqa: F401

    import device_farm.compiler.frontend.torch_module  # noqa: F401
    from device_farm.compiler.frontend import loading

    torch.set_num_threads(1)
    monkeypatch.setattr(loading, "_run", _run)


def _run(job: str, folder: Path, *, timeout_s: float) -> int:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(job, folder, reader, writer)
    os.close(reader)
    try:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise InvalidGraph(f"the network was not loaded within {timeout_s:g} s")
    finally:
        os.close(writer)


def _be_the_child(job: str, folder: Path, reader: int, writer: int) -> None:
    """Never returns."""
    status = 1
    try:
        from device_farm.compiler.frontend import loader

        os.close(writer)
        said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT)
        os.dup2(reader, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        loader.main(json.loads(job))
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)
