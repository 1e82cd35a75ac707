"""A farm that several searches share, as its owner and as searches use it: a Ray cluster, adb, emulated phones."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from device_farm.fleet.entries import Kind
from device_farm.fleet.journal import Journal as FarmJournal
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer
from npas_ray.cli import main
from npas_ray.reports import read_run

ROOT = Path(__file__).parents[3]
FAST, SLOW = "emu-x86-fast", "emu-x86-slow"
_CLUSTER_S = 180.0


@dataclass(frozen=True)
class Lab:
    """A cluster, and an adb server with three phones, on which nothing runs yet."""

    folder: Path
    address: str
    phones: EmulatedPhones
    server: str
    environment: dict[str, str]

    def npas(self, *words: str, code: int = 0) -> str:
        """What a command prints, in a process of its own."""
        done = self.start(*words)
        out, err = done.communicate(timeout=900)
        assert done.returncode == code, f"{words}\n{out}\n{err[-4000:]}"
        return f"{out}{err}"

    @property
    def at(self) -> tuple[str, str]:
        return "--address", self.address

    def once_well(self) -> str:
        """The list of the farm's phones when all three are healthy; on a busy machine one may join late, or again."""
        until = time.monotonic() + 120
        while (text := self.npas("devices", "list", "--farm", "lab", *self.at)).count("healthy") < 3:
            assert time.monotonic() < until, text
        return text

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "npas_ray", *words]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def write(self, name: str, **content: Any) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump({"cluster": {"address": self.address}, **content}))
        return path

    def farm(self, **changes: Any) -> Path:
        content: dict[str, Any] = {
            "devices": [{"kind": "adb", "server": self.server}],
            "journal": "journals",
            "measurement": {"warmup_s": 0.01, "min_time_s": 0.05, "admission": {"max_battery_temperature_c": 39}},
        }
        return self.write("lab.yaml", **(content | changes))

    def search(self, name: str, **changes: Any) -> Path:
        content: dict[str, Any] = {
            "search": {"policy": "random", "candidates": 3},
            "task": {"train_images": 200},
            "training": {"epochs": 1, "final_epochs": 1, "workers": 1},
            "devices": [{"kind": "farm", "farm": "lab", "model": model} for model in (FAST, SLOW)],
        }
        return self.write(f"{name}.yaml", **(content | changes))

    def measured(self) -> list[str]:
        """Keys in the farm's journal, when it has ended."""
        with contextlib.closing(FarmJournal.open(self.folder / "journals" / "journal.sqlite")) as journal:
            return [
                entry.key
                for serial in self.phones.addresses
                for entry in journal.history(serial, limit=10**6)
                if entry.kind is Kind.MEASURED
            ]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.4", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "150",  # on a machine that does other things, too
        "NPAS_CACHE_DIR": str(cache_dir),
    }
    with (
        EmulatedPhones([FAST, SLOW, FAST], pace=0.0) as phones,
        AdbServer.start_private(home=folder / "adb") as server,
        (folder / "ray.log").open("wb") as log,
    ):
        for address in phones.addresses:
            server.connect(address)
        short = _short_folder(folder)
        ray = Path(sys.executable).with_name("ray")
        head = ["start", "--head", "--block", "--node-ip-address=127.0.0.4", f"--port={port}", "--num-cpus=3"]
        quiet = ["--include-dashboard=false", "--object-store-memory=100000000", f"--temp-dir={short}"]
        cluster = subprocess.Popen(
            [ray, *head, *quiet], env=environment, stdout=log, stderr=log, preexec_fn=_die_with_us
        )
        try:
            _wait_for(folder / "ray.log", "Ray runtime started", cluster)
            yield Lab(folder, f"127.0.0.4:{port}", phones, str(server), environment)
        finally:
            cluster.send_signal(signal.SIGTERM)
            cluster.wait(60)
            Path(short).unlink()


def _die_with_us() -> None:
    """Also after kill -9 of the tests no cluster is left."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _short_folder(folder: Path) -> str:
    """The paths of Ray's sockets must be short."""
    short = Path("/tmp") / f"npas-{secrets.token_hex(4)}"
    short.symlink_to(folder / "ray")
    (folder / "ray").mkdir()
    return str(short)


def _wait_for(log: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _CLUSTER_S
    while words not in log.read_text():
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def test_the_owner_looks_after_it_and_searches_are_told_what_it_has(lab: Lab) -> None:
    text = lab.npas("farm", "start", str(lab.farm()))
    assert f"the farm lab runs on the Ray cluster at {lab.address}" in text
    assert lab.once_well().count("EMULATED") == 3
    assert f'{{kind: farm, farm: lab, model: "{FAST}"}}' in text
    assert "npas farm stop lab" in lab.npas("farm", "start", str(lab.farm(journal="elsewhere")), code=4)

    at = lab.at
    one = lab.phones.addresses[0]
    quarantine = ("devices", "quarantine", one, "--farm", "lab", "--reason", "a cracked screen")
    assert f"{one}: quarantined (a cracked screen)" in lab.npas(*quarantine, *at)
    status = json.loads(lab.npas("farm", "status", "lab", "--json", *at))
    assert {d["serial"]: d["state"] for d in status["devices"]}[one] == "quarantined"
    assert (status["answers"], status["load"][FAST]["idle"], status["complaints"]) == (0, 1, {})
    assert f"{one}: healthy" in lab.npas("devices", "release", one, "--farm", "lab", *at)
    assert "a cracked screen" in lab.npas("devices", "history", one, "--farm", "lab", *at)
    lab.once_well()

    dry = ("search", "s.yaml", "--dry-run")
    lab.search("s", devices=[{"kind": "farm", "farm": "lab", "model": "emu-x86-fest"}])
    text = lab.npas(*dry, code=2)
    assert "devices[0].model: the farm 'lab' has no 'emu-x86-fest': it has 2 of 'emu-x86-fast', 1 of" in text
    assert "did you mean 'emu-x86-fast'?" in text
    lab.search("s", measurement={"min_time_s": 0.3})
    assert "measurement.min_time_s: the farm 'lab' measures with 0.05; got 0.3" in lab.npas(*dry, code=2)
    lab.search("s")
    planned = json.loads(lab.npas(*dry, "--json"))["config"]
    assert [device["target"] for device in planned["devices"]] == ["x86_64-avx512", "x86_64-avx2"]
    assert planned["measurement"]["min_time_s"] == 0.05
    assert planned["measurement"]["admission"]["max_battery_temperature_c"] == 39

    assert "journal.sqlite" in lab.npas("farm", "stop", "lab", *at)
    lab.search("s", devices=[{"kind": "farm", "farm": "lab", "model": FAST}])
    assert f"no farm 'lab' runs on the Ray cluster at {lab.address}: it has no farm." in lab.npas(*dry, code=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_searches_share_it_and_nothing_is_measured_twice(lab: Lab) -> None:
    lab.npas("farm", "start", str(lab.farm()))
    one, two = lab.search("one", seed=1), lab.search("two", seed=2)
    both = [lab.start("search", str(path)) for path in (one, two)]
    for search in both:
        out, err = search.communicate(timeout=900)
        assert search.returncode == 0, err[-4000:]
        assert "2 phones, 3 sessions" in out and "this one device only" in out
    runs = [read_run(lab.folder / "runs" / name) for name in ("one", "two")]
    assert all(len(run.done) == 3 and run.models == (FAST, SLOW) for run in runs)
    assert all(run.latest_note("finalist")["rejected"] is None for run in runs)

    at = ("--address", lab.address)
    before = json.loads(lab.npas("farm", "status", "lab", "--json", *at))["answers"]
    lab.npas("search", str(one), "--run-dir", "runs/again")
    after = json.loads(lab.npas("farm", "status", "lab", "--json", *at))
    assert after["answers"] == before  # all of it was known
    again = read_run(lab.folder / "runs" / "again")
    assert [c.latency_ms for c in again.candidates] == [c.latency_ms for c in runs[0].candidates]

    verified = json.loads(lab.npas("verify", "runs/one", "--server", lab.server, "--json"))
    assert [found["device"] in lab.phones.addresses for found in verified["devices"]] == [True, True]
    assert verified["passed"] and verified["devices"][0]["latency"]["again_ms"] > 0
    assert "processes use the farm lab" in lab.npas("farm", "stop", "lab", *at, code=2)
    lab.npas("farm", "stop", "lab", "--force", *at)
    keys = lab.measured()
    assert len(keys) == len(set(keys)) == before


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("devices: [{kind: farm, farm: a, model: b}]", "devices[0].kind: expected one of local, adb; got 'farm'"),
        ("devices: [{kind: adb, model: Pixel}]", "devices[0].model: expected serials beside it"),
        (
            "devices: [{kind: local, cpu: 1}, {kind: local, cpu: 1, threads: 2}]",
            "devices[1].cpu: expected a core that no other",
        ),
        ("devices: [{kind: adb}]\njurnal: x", "jurnal: unknown key; did you mean 'journal'?"),
        ("devices: [{kind: adb}]\nmeasurement: {admission: {max_temp_c: 3}}", "did you mean 'max_temperature_c'?"),
        ("devices: [{kind: adb}]\nshares: {a: 0}", "shares.a: expected a number > 0; got 0"),
        ("devices: [{kind: adb}]\ncluster: {address: local}", "cluster.address: expected 'auto' or the address"),
        ("name: x", "devices: expected a value; got nothing"),
    ],
)
def test_an_impossible_farm_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, line: str
) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(content)
    assert main(["farm", "start", str(path)]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert line in said
