from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.calibration.breakeven import Point, Verdict
from device_farm.calibration.file import Calibration, Identity, Network, read_calibration, slower, write_calibration
from device_farm.errors import CalibrationError

IDENTITY = Identity("c" * 64, "x86_64-avx512", "local", "0.05-0.2", {"backbone": {"name": "digits"}})
POINT = Point("block0", "3x3/block-punched@2", "3x3", 0.01, 0.008, 0.002, 0.0002, 3, Verdict.SLOWER)


@pytest.fixture
def calibration(make_world: Callable[..., Any]) -> Calibration:
    world = make_world()
    networks = tuple(Network((f"a{i}", "b"), world.observe(world.network())) for i in range(12))
    return Calibration(IDENTITY, networks, (POINT,), (0.5, 1.0, 2.5), "2026-01-01T00:00:00", {"cores": 4}, {})


@pytest.fixture
def path(calibration: Calibration, tmp_path: Path) -> Path:
    write_calibration(tmp_path / "deep" / "calibration.json", calibration)
    return tmp_path / "deep" / "calibration.json"


def test_it_comes_back_equal_and_predicts_the_same(calibration: Calibration, path: Path) -> None:
    again = read_calibration(path)
    assert replace(again, networks=()) == replace(calibration, networks=())
    before, after = calibration.predictor(), again.predictor()
    steps = [network.observation.steps for network in again.networks]
    a, b = (p.predict([[p.part(s)] for s in steps]) for p in (before, after))
    np.testing.assert_allclose(a.mean_ms, b.mean_ms)
    np.testing.assert_allclose(a.high_ms, b.high_ms)


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema=2), "schema"),
        (lambda d: d.update(schema="1"), "schema"),
        (lambda d: d.update(kind="something"), "kind"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.pop("steps"), "steps"),
        (lambda d: d.update(networks=[]), "networks"),
        (lambda d: d.update(networks={}), "networks"),
        (lambda d: d["networks"][3].update(latency_ms=float("nan")), "networks.3.latency_ms"),
        (lambda d: d["networks"][3].update(latency_ms=float("inf")), "networks.3.latency_ms"),
        (lambda d: d["networks"][3].update(latency_ms=-1.0), "networks.3.latency_ms"),
        (lambda d: d["networks"][3].update(latency_ms=0), "networks.3.latency_ms"),
        (lambda d: d["networks"][3].update(latency_ms=True), "networks.3.latency_ms"),
        (lambda d: d["networks"][3].update(latency_ms=10**400), "networks.3.latency_ms"),
        (lambda d: d["networks"][3].update(latency_ms="fast"), "networks.3.latency_ms"),
        (lambda d: d["networks"][3].update(steps=[]), "networks.3.steps"),
        (lambda d: d["networks"][3]["steps"][0].__setitem__(1, -0.1), "networks.3.steps.0"),
        (lambda d: d["networks"][3]["steps"][0].__setitem__(0, "nobody"), "networks.3: step 'nobody'"),
        (lambda d: d["networks"][3]["steps"].append(["0-1"]), "networks.3.steps"),
        (lambda d: d["steps"].update(x=["kind", -5, 1, 1, 1]), "steps.x"),
        (lambda d: d["steps"].update(x=["kind", 1.5, 1, 1, 1]), "steps.x"),
        (lambda d: d["points"][0].update(verdict="maybe"), "points.0.verdict"),
        (lambda d: d["points"][0].update(std_ms=-1), "points.0.std_ms"),
        (lambda d: d["points"][0].update(difference_ms=float("nan")), "points.0.difference_ms"),
        (lambda d: d["stretch"].append(float("inf")), "stretch.3"),
        (lambda d: d["identity"].pop("compiler"), "identity.compiler"),
    ],
)
def test_whatever_is_wrong_is_one_clear_line(path: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    changed(path, change)
    with pytest.raises(CalibrationError) as caught:
        read_calibration(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a calibration of schema 1: ")
    assert said in message
    assert "npas calibrate" in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"\x00\xff\xfe", b"[" * 100_000, b'{"schema": 1}'])
def test_what_is_no_calibration_at_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="not a calibration of schema 1"):
        read_calibration(path)


def test_numbers_beyond_reason_give_a_predictor_or_a_clear_error(path: Path) -> None:
    """Whatever passes for a calibration can be asked: no other exception, no NaN."""
    original = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = json.loads(json.dumps(original))
        for network in data["networks"]:
            if rng.random() < 0.5:
                network["latency_ms"] = float(10 ** rng.uniform(-8.9, 8.9))
            if rng.random() < 0.5:
                network["relative_error"] = float(rng.choice([0.0, 1e-300, 1e8]))
            for step in network["steps"]:
                if rng.random() < 0.3:
                    step[1] = float(rng.choice([0.0, 1e-300, 10 ** rng.uniform(-9, 8.9)]))
        for shape in data["steps"].values():
            if rng.random() < 0.3:
                shape[1:] = [int(rng.choice([0, 1, 2**53 - 1])) for _ in range(4)]
        path.write_text(json.dumps(data))
        calibration = read_calibration(path)
        try:
            predictor = calibration.predictor()
        except CalibrationError:
            continue
        answer = predictor.predict([[predictor.part(n.observation.steps)] for n in calibration.networks])
        for values in (answer.mean_ms, answer.std_ms, answer.low_ms, answer.high_ms, answer.unseen):
            assert np.isfinite(values).all()


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 3, 40).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(CalibrationError, match="not a calibration"):
            read_calibration(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(CalibrationError, match=r"cannot be read.*npas calibrate"):
            read_calibration(path)


def test_nothing_that_no_other_program_reads_is_written(calibration: Calibration, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_calibration(path, replace(calibration, conditions={"load": float("nan")}))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_only_what_is_slower_everywhere_is_slower(calibration: Calibration) -> None:
    other = replace(POINT, choice="3x3/pattern@3")
    here = replace(calibration, points=(POINT, other, replace(POINT, layer="block1", verdict=Verdict.UNCLEAR)))
    there = replace(calibration, points=(POINT, replace(other, verdict=Verdict.PAYS)))
    assert set(slower([here])) == {("block0", POINT.choice), ("block0", other.choice)}
    assert set(slower([here, there])) == {("block0", POINT.choice)}
    assert slower([here, replace(calibration, points=())]) == {}
    assert slower([]) == {}
