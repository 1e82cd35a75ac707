"""A peer's process as seen by a benchmark: a timing session with an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import relative_error
from benchmarks.peers import PEERS

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-3  # a peer's largest relative error: Winograd with tiles of 6x6 (MNN) costs digits
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class PeerFailed(RuntimeError):
    """A peer cannot run the network, or runs it wrongly. The message is what a table may say."""


class PeerProcess:
    """One network in one peer: a session for `interleave`. Close it, or use it in a with statement."""

    def __init__(self, name: str, model: bytes) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix=f"peer-{name}-")
        self._scratch = Path(self._folder.name)
        network = self._scratch / "network.onnx"
        network.write_bytes(model)
        self._log = (self._scratch / "log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.child", name, str(network), str(self._scratch)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=ROOT,
            env=os.environ | ONE_THREAD,
        )  # fmt: skip
        try:
            self._read()
        except PeerFailed:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def answer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output for one NCHW image; it stays loaded for the timing. Raises PeerFailed."""
        given, taken = self._scratch / "image.npy", self._scratch / "output.npy"
        np.save(given, image)
        self._ask(answer=str(given), to=str(taken))
        output: NDArray[np.float32] = np.load(taken)
        return output

    def __call__(self, seconds: float, cpu: int) -> Sequence[float]:
        samples: list[float] = self._ask(seconds=seconds, cpu=cpu)["samples_ms"]
        return samples

    def loads(self, count: int) -> list[float]:
        """Seconds of loading the model anew, `count` times, on the cores of this process."""
        seconds: list[float] = self._ask(loads=count)["seconds"]
        return seconds

    def close(self) -> None:
        """End the process; what it left on disk goes too."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reading tells why
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = self._log.read().strip()[-300:]
            raise PeerFailed(f"{self.name} ended with {self._process.wait()}: {last}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise PeerFailed(f"{self.name}: {reply['error']}")
        return reply


def open_peers(
    names: Sequence[str], model: bytes, image: NDArray[np.float32], expected: NDArray[np.float32]
) -> tuple[dict[str, PeerProcess], Mapping[str, str], Mapping[str, float]]:
    """Prepare and verify peers on one network.

    Returns (the peers that are ready, why each of the others is not, the relative errors of all that answered).
    A wrong peer is left out: its time would mean nothing.
    """
    ready: dict[str, PeerProcess] = {}
    absent: dict[str, str] = {}
    errors: dict[str, float] = {}
    for name in names:
        if missing := PEERS[name].missing():
            absent[name] = f"not installed: {', '.join(missing)}"
            continue
        try:
            peer = PeerProcess(name, model)
        except PeerFailed as failure:
            absent[name] = str(failure)
            continue
        try:
            errors[name] = relative_error(peer.answer(image), expected)
            if errors[name] > TOLERANCE:
                raise PeerFailed(f"{name}: relative error {errors[name]:.1e}, more than {TOLERANCE:g}")
            ready[name] = peer
        except PeerFailed as failure:
            absent[name] = str(failure)
            peer.close()
    return ready, absent, errors
