"""`npas calibrate` with the real compiler on this machine: nothing is asserted of the times themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from device_farm.calibration.file import read_calibration
from device_farm.emulator.faults import PhoneFault
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer
from npas_ray.cli import main

ROOT = Path(__file__).parents[3]
CONFIG = """
name: tiny
space: {operators: [3x3, skip], schemes: [block-punched], rates: [1, 5]}
measurement: {warmup_s: 0.001, min_time_s: 0.005, max_relative_ci: 1, attempts: 1}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def start(config: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """The calibration as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "npas_ray", "calibrate", str(config), "--out", str(out), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def measured(journal: Path) -> list[tuple[tuple[str, ...], int]]:
    """(candidate, attempt) of every line that is whole."""
    if not journal.exists():
        return []
    lines = [line for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(tuple(record["label"]), record["attempt"]) for record in map(json.loads, lines[1:])]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "loca"], "--device: expected one of local; got 'loca'; did you mean 'local'?"),
        (["--candidates", "3"], "--candidates: expected a whole number in 8..100000; got 3"),
        (["--out", "."], "--out: expected a file"),
        (["--set", "space.rate=[1]"], "did you mean 'space.rates'?"),
    ],
)
def test_wrong_usage_is_said_before_anything_starts(
    config: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(config), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_measures_nothing_twice(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "calibration.json"
    journal = out.with_name("calibration.json.journal")
    first = start(config, out)
    deadline = time.monotonic() + 150
    while len(measured(journal)) < 3:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = measured(journal)
    assert not out.exists()

    second = start(config, out, "--json")
    stdout, stderr = second.communicate(timeout=200)
    assert second.returncode == 0, stderr
    after = measured(journal)
    assert after[: len(before)] == before
    assert set(Counter(after).values()) == {1}  # no candidate in the same attempt twice
    result = json.loads(stdout)
    assert result["candidates"]["measured"] == result["candidates"]["wanted"] == 9
    assert sum(result["points"].values()) == 7

    calibration = read_calibration(out)
    assert {network.label for network in calibration.networks} == {label for label, _ in after}
    assert calibration.identity.device_model == "local"
    assert all(point.against == "3x3" and point.time_ms > 0 and point.against_ms > 0 for point in calibration.points)
    predictor = calibration.predictor()
    known = predictor.predict([[predictor.part(n.observation.steps)] for n in calibration.networks])
    assert (known.low_ms < known.mean_ms).all()

    # and a search takes it
    environment = os.environ | {"NPAS_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "npas_ray", "search", str(config), "--dry-run", "--json"]
    named = subprocess.run(
        [*command, "--set", f"space.breakeven={out}", "--run-dir", str(tmp_path / "run")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert named.returncode == 0, named.stderr
    assert json.loads(named.stdout)["space"]["left_out"] == len(result["slower"])

    # nothing is left to measure: it only fits again
    assert main(["calibrate", str(config), "--out", str(out), "--json"]) == 0
    assert measured(journal) == after


@pytest.mark.slow
def test_phones_behind_adb_are_calibrated_all_at_once_and_one_may_go_and_come(tmp_path: Path) -> None:
    out, model = tmp_path / "phones.json", "emu-x86-fast"
    config, journal = tmp_path / "phones.yaml", out.with_name("phones.json.journal")
    with (
        AdbServer.start_private(home=tmp_path / "adb") as server,
        EmulatedPhones([model] * 3, seed=0) as phones,
    ):
        for address in phones.addresses:
            server.connect(address)
        devices = f"devices: [{{kind: adb, model: {model}, server: '{server}'}}]\ncluster: {{cpus: 2}}\n"
        config.write_text(CONFIG + devices)
        running = start(config, out, "--candidates", "12", "--json")
        deadline = time.monotonic() + 200
        while not measured(journal):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        phones[0].inject(PhoneFault.UNPLUG)
        phones[0].heal()
        stdout, stderr = running.communicate(timeout=200)
        assert running.returncode == 0, stderr
        programs = [sum(run.arguments[1] == "bench" for run in phone.runs) for phone in phones]
    result = json.loads(stdout)
    wanted = result["candidates"]["wanted"]
    assert result["candidates"] == {"wanted": wanted, "measured": wanted, "failed": 0} and wanted >= 8
    assert set(Counter(measured(journal)).values()) == {1}
    assert all(programs), "a phone of the model had nothing to do"
    calibration = read_calibration(out)
    assert calibration.identity.device_model == model and calibration.device["emulated"]
    # The phones' time is a model of multiply-adds, so what is pruned is told apart by it, and predicted.
    assert result["left_out_of_fits"]["rank_correlation"] > 0.8
    assert result["left_out_of_fits"]["median_error"] < 0.1
