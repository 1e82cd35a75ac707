"""`npas search` in a process of its own on emulated phones, as the chaos test sees it: from outside, by its files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import device_farm
from device_farm.emulator.processes import Run
from device_farm.testing.phone_lab import kill_adb_server
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer
from npas_ray.config import SearchConfig
from npas_ray.runs.setting import make_space
from npas_ray.space.choices import Architecture

ROOT = Path(device_farm.__file__).parent.parent


@dataclass(frozen=True)
class Row:
    """Of the farm's journal."""

    at_s: float
    kind: str
    key: str
    serial: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """What became of one. `latency_ms` by device model."""

    key: str
    status: str
    reason: str
    latency_ms: dict[str, float]


class SearchLab:
    """Context manager: phones, an adb server, and one search at a time. Ends everything that it started."""

    def __init__(
        self, folder: Path, models: Sequence[str], *, cache_dir: Path, candidates: int, deadline_s: float
    ) -> None:
        self._folder, self._models, self._cache_dir = folder, list(models), cache_dir
        self._candidates, self._deadline_s = candidates, deadline_s
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.phones: EmulatedPhones
        self.server: PrivateAdbServer
        self.made_s = 0.0  # since the epoch; the phones' own times begin then

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.server = stack.enter_context(AdbServer.start_private(home=self._folder / "adb"))
            self.phones = stack.enter_context(EmulatedPhones(self._models))
            self.made_s = time.time()
            for address in self.phones.addresses:
                self.server.connect(address)
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self) -> None:
        """Begins the search."""
        config = self._folder / "search.json"  # JSON is YAML
        config.write_text(json.dumps(self._config()))
        command = [sys.executable, "-m", "npas_ray", "search", str(config), "--run-dir", str(self.run_dir)]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        changed = {"NPAS_CACHE_DIR": str(self._cache_dir), "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | changed, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )

    def finish(self, timeout_s: float) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def run_dir(self) -> Path:
        return self._folder / "run"

    @property
    def log(self) -> Path:
        return self._folder / "search.log"

    def candidates(self) -> list[Candidate]:
        rows = self._read("journal", "SELECT key, COALESCE(status, ''), COALESCE(reason, '') FROM candidates")
        measured = self._read("journal", "SELECT key, data FROM events WHERE kind = 'measured'")
        found: dict[str, dict[str, float]] = {key: {} for key, _, _ in rows}
        for key, text in measured:
            data = json.loads(text)
            found[key][data["model"]] = data["measurement"]["latency_ms"]
        return [Candidate(key, status, reason, found[key]) for key, status, reason in rows]

    def rows(self, *kinds: str) -> list[Row]:
        """Of the farm's journal, in its order; all kinds if none is named."""
        wanted = f"WHERE kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        found = self._read("farm", f"SELECT at, kind, key, serial, data FROM log {wanted} ORDER BY id", *kinds)
        return [Row(at_s, kind, key, serial, json.loads(data)) for at_s, kind, key, serial, data in found]

    def count(self, kind: str) -> int:
        ((number,),) = self._read("farm", "SELECT count(*) FROM log WHERE kind = ?", kind) or [(0,)]
        return int(number)

    def runs(self, serial: str) -> list[Run]:
        """Programs that a phone was asked to time, in their order; its times are seconds since the phone was made."""
        runs = self.phones[self.phones.addresses.index(serial)].runs
        return [run for run in runs if run.arguments[1:2] == ("bench",)]

    def kill_server(self) -> None:
        """kill -9 of the adb server; the search's farm starts another one."""
        kill_adb_server(self.server)

    def kill_broker(self) -> None:
        """kill -9 of the process of this search's broker; returns when it lives again."""
        lives = self.count("life")
        for pid in self._below("ray::Broker"):
            os.kill(pid, signal.SIGKILL)
        self.until(lambda: self.count("life") > lives or not self.is_running())

    @staticmethod
    def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited in vain for {timeout_s:g} s")
            time.sleep(0.1)

    def _listed(self) -> Path:
        """A file with as many architectures as there are to be candidates, the same for every lab."""
        space, rng = make_space(SearchConfig.from_json({"name": "chaos"})), np.random.default_rng(0)
        drawn: dict[Architecture, None] = {}
        while len(drawn) < self._candidates:
            drawn[space.sample(rng)] = None
        path = self._folder / "architectures.json"
        path.write_text(json.dumps([architecture.to_json() for architecture in drawn]))
        return path

    def _config(self) -> dict[str, Any]:
        by_model: dict[str, list[str]] = {}
        for address, model in zip(self.phones.addresses, self._models, strict=True):
            by_model.setdefault(model, []).append(address)
        return {
            "name": "chaos",
            "task": {"train_images": 100},
            # What a policy proposes depends on what it has heard by then; a list is the same in every search.
            "search": {
                "policy": "random",
                "candidates": self._candidates,
                "warm_start": [{"architectures": str(self._listed())}],
            },
            "training": {"epochs": 0, "final_epochs": 0, "workers": 1},
            "devices": [
                {"kind": "adb", "model": model, "server": str(self.server), "serials": serials}
                for model, serials in by_model.items()
            ],
            "measurement": {
                "warmup_s": 0.01,
                "min_time_s": 0.1,
                "deadline_s": self._deadline_s,
                "finalists": {"sessions": 1},
            },
            "cluster": {"cpus": 2},
        }

    def _read(self, name: str, query: str, *values: str) -> list[Any]:
        """Nothing while there is no such file."""
        uri = f"file:{self.run_dir / name}.sqlite?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as journal:
                return journal.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            return []

    def _below(self, name: str) -> list[int]:
        """Processes that descend from the search and whose command begins so."""
        parents: dict[int, int] = {}
        named: list[int] = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(folder.name)
                parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if (folder / "cmdline").read_bytes().startswith(name.encode()):
                    named.append(pid)
        return [pid for pid in named if self._descends(pid, parents)]

    def _descends(self, pid: int, parents: dict[int, int]) -> bool:
        assert self._process is not None
        while pid in parents and pid != self._process.pid:
            pid = parents[pid]
        return pid == self._process.pid

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
