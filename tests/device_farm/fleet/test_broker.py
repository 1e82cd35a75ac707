"""The broker outlives its own death, its devices and its clients. On a real Ray of several nodes.

`lab` is a farm of three devices with a journal that all tests share: every test asks for networks of its own name, and
leaves the devices as they were.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import ray

from device_farm.errors import JournalError, LeaseError, NoSuchDevice, Poisoned, Refused, RunnerFailed
from device_farm.fleet.entries import Kind
from device_farm.fleet.farm import Farm, FarmDevice
from device_farm.fleet.words import DeviceState, Failed

StartFarm = Callable[..., Farm]
MODEL = "scripted"
EVERYWHERE = {"*": "crash"}


def network(key: str, **script: Any) -> Any:
    from standins import network as make

    return make(key, **script)


def measure(farm: Farm, key: str, *, replicate: int = 0, script: Mapping[str, Any] | None = None) -> Any:
    return farm.measure(network(key, **script or {}), model=MODEL, timeout_s=60, replicate=replicate)


def runs(folder: Path, key: str) -> list[str]:
    """Serials of the devices that really ran a network, in order."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[0] for line in lines if line.split()[1].startswith(f"{key}-")]


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def eventually(check: Callable[[], None], timeout_s: float = 60) -> None:
    """What the check asserts comes true; its last failure, if not."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            return check()
        except (AssertionError, KeyError):
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


def state(farm: Farm, serial: str) -> DeviceState | None:
    return next((device.state for device in farm.devices() if device.serial == serial), None)


def view(farm: Farm, serial: str) -> FarmDevice:
    return next(device for device in farm.devices() if device.serial == serial)


def broker(farm: Farm) -> Any:
    return ray.get_actor(farm.name, namespace=farm.namespace)


def kill_broker(farm: Farm) -> None:
    os.kill(ray.get(broker(farm).pid.remote()), signal.SIGKILL)


def baselines(farm: Farm, serial: str) -> list[float]:
    return [e.data["baseline_ms"] for e in farm.history(serial, limit=10**6) if e.kind is Kind.BASELINE]


def beside(measurement: Any) -> tuple[float, float | None]:
    """The sentinel's baseline, and how it compares with the model's."""
    sentinel = measurement.conditions["sentinel"]
    return sentinel["baseline_ms"], sentinel["of_model"]


def test_a_broker_that_was_killed_knows_what_it_knew(lab: Farm, lab_folder: Path) -> None:
    from standins import lab_config

    from device_farm.fleet.farm import LocalDevice

    serials = ("d0", "d1", "d2")
    # Answers.
    pending = [lab.submit(network(f"known{n}", seconds=0.3), model=MODEL) for n in range(6)]
    answers = [p.result(60) for p in pending]
    assert {answer.device.serial for answer in answers} == {"d0", "d1", "d2"}
    # Baselines: each device's first, and one that was taken anew.
    assert {beside(answer)[0] for answer in answers} == {2.0}
    assert [baselines(lab, serial) for serial in serials] == [[2.0]] * 3
    assert lab.calibrate("d1") == 3.0 and baselines(lab, "d1") == [2.0, 3.0]
    # Devices that were attached and detached by hand; quarantines.
    lab.attach(LocalDevice(name="by hand", model="host", num_cpus=0))
    lab.detach("d2")
    lab.quarantine("d1", reason="a crack in its screen")
    # A program that has harmed one device.
    with pytest.raises(RunnerFailed, match="2 times on d0, the only usable device"):
        measure(lab, "crash", script=EVERYWHERE)
    # And work under way.
    under_way = [lab.submit(network(f"underway{n}", seconds=0.3), model=MODEL) for n in range(4)]
    until(lambda: bool(runs(lab_folder, "underway1")))
    pid = ray.get(broker(lab).pid.remote())
    kill_broker(lab)

    assert [p.result(60).artifact_key for p in under_way] == [f"underway{n}-None-0" for n in range(4)]
    assert ray.get(broker(lab).pid.remote()) != pid
    assert len(runs(lab_folder, "underway0")) == 1  # it was acknowledged to nobody, and yet it is not done again
    assert {serial for n in range(4) for serial in runs(lab_folder, f"underway{n}")} == {"d0"}
    assert [measure(lab, f"known{n}", script={"seconds": 0.3}) for n in range(6)] == answers
    assert [len(runs(lab_folder, f"known{n}")) for n in range(6)] == [1] * 6
    with pytest.raises(RunnerFailed, match="2 times on d0") as caught:
        measure(lab, "crash", script=EVERYWHERE)
    assert len(caught.value.__notes__) == 2 and runs(lab_folder, "crash") == ["d0", "d0"]
    until(lambda: state(lab, "by hand") is DeviceState.HEALTHY and state(lab, "d1") is DeviceState.QUARANTINED)
    assert [d.serial for d in lab.devices()] == ["d0", "d1", "by hand"]
    assert view(lab, "d1").reason == "a crack in its screen"
    lab.detach("by hand")

    lab.quarantine("d0", reason="not its turn")
    lab.release("d1")
    assert beside(measure(lab, "afterwards")) == (3.0, 1.5)  # on d1, and its model's median is 2
    lab.attach(lab_config(lab_folder).devices[2])
    until(lambda: state(lab, "d2") is DeviceState.HEALTHY)
    lab.release("d0")
    # The program has harmed one device in the earlier life, so it may harm one more and no third.
    with pytest.raises(Poisoned, match="2 different devices") as poisoned:
        measure(lab, "crash", replicate=1, script=EVERYWHERE)
    ran = runs(lab_folder, "crash")
    assert ran[:2] == ["d0", "d0"] and len(ran) == 3 and ran[2] in ("d1", "d2")
    fences = [int(note.split()[1]) for note in poisoned.value.__notes__]
    assert fences[0] < fences[1] < fences[2] - 10**6  # another life's
    # Compiled for every life of the broker, not for every device.
    assert (lab_folder / "compiled").read_text().splitlines().count("sentinel x86_64-avx2") == 2


def test_a_broker_that_comes_back_without_its_journal_says_so(start_farm: StartFarm, tmp_path: Path) -> None:
    """As where its node died and Ray began it on another one, which has another disk."""
    farm = start_farm("d0", journal=tmp_path / "disk" / "farm.sqlite")
    measure(farm, "before")
    assert farm.status().complaints == {}
    (tmp_path / "disk").rename(tmp_path / "the disk of a node that died")
    kill_broker(farm)
    until(lambda: "journal" in farm.status().complaints)
    said = farm.status().complaints["journal"]
    assert "began an empty one: what was measured and quarantined before is on the node that it was on" in said
    assert str(tmp_path / "disk" / "farm.sqlite") in said and "stop the farm and start it there" in said
    # It serves on, measures again what it does not know, and goes on saying so.
    assert measure(farm, "before").artifact_key == "before-None-0"
    assert runs(tmp_path, "before") == ["d0", "d0"] and farm.status().answers == 1
    kill_broker(farm)  # this time the journal is where it was
    until(lambda: farm.status().complaints == {})
    assert farm.status().answers == 1


def test_the_history_of_a_device(lab: Farm) -> None:
    lab.quarantine("d2", reason="a crack in its screen")
    lab.release("d2")
    measure(lab, "history")
    kinds = [entry.kind for entry in lab.history("d2")]
    last = len(kinds) - 1 - kinds[::-1].index(Kind.QUARANTINED)
    assert kinds[last + 1] is Kind.RELEASED
    assert lab.history("d2")[last].data["reason"] == "a crack in its screen"
    assert Kind.JOINED in kinds and len(lab.history("d2", limit=2)) == 2
    measured = [entry for serial in ("d0", "d1", "d2") for entry in lab.history(serial) if entry.kind is Kind.MEASURED]
    assert "history-None-0" in {entry.data["artifact_key"] for entry in measured}
    assert lab.history("never heard of") == []
    with pytest.raises(NoSuchDevice, match="no device 'd7' is attached; there are d0, d1, d2"):
        lab.quarantine("d7", reason="?")
    with pytest.raises(NoSuchDevice):
        lab.release("d7")


def test_prometheus_sees_the_farm(lab: Farm) -> None:
    pytest.importorskip("prometheus_client", reason="Ray serves metrics with the packages of ray[default] only")
    with pytest.raises(Refused):
        measure(lab, "refused", script={"*": "refused"})
    ports = [node["MetricsExportPort"] for node in cast(Any, ray).nodes() if node["Alive"]]

    def samples() -> dict[str, float]:
        """By name and labels of ours, on whichever node the broker is."""
        found = {}
        for port in ports:
            with contextlib.suppress(OSError):
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
                for line in text.splitlines():
                    if line.startswith("ray_npas_farm_") and 'farm="lab"' in line:
                        match = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
                        assert match is not None
                        name, labels, value = match.groups()
                        ours = re.findall(r'(blame|error|kind|model|serial|stage|state|zone)="(.*?)"', labels)
                        found[" ".join([name.removeprefix("ray_npas_farm_"), *(v for _, v in sorted(ours))])] = float(
                            value
                        )
        return found

    def tells_it_all() -> None:
        now = samples()
        assert now["faults_total device Refused"] >= 3
        assert now["measurements_total scripted"] >= 1
        assert now["devices scripted healthy"] == 3
        assert now["queue_jobs scripted measure"] == 0 and now["leases measure"] == 0
        assert now["utilisation scripted"] == 0 and now["clients"] >= 1
        assert sum(now[f"busy_seconds_total {serial}"] for serial in ("d0", "d1", "d2")) > 0.1
        assert now["measurement_seconds_count scripted"] >= 1
        drifts = [now[f"sentinel_drift {serial}"] for serial in ("d0", "d1", "d2") if f"sentinel_drift {serial}" in now]
        assert drifts == pytest.approx([0.01] * len(drifts)) and drifts
        assert 31.5 in (now.get(f"temperature_celsius {serial} skin") for serial in ("d0", "d1", "d2"))
        assert any(name.startswith("device_events_total joined") for name in now)

    eventually(tells_it_all)  # Ray tells its metrics every few seconds, and the devices rested for the refusals


def test_what_nobody_waits_for_any_more_is_not_measured(lab: Farm, lab_folder: Path, ray_cluster: Any) -> None:
    program = f"""
import ray, time
from standins import network
from device_farm.fleet.farm import Farm
ray.init(address={ray_cluster.address!r}, log_to_driver=False)
farm = Farm.connect("lab", namespace="npas-tests", client="doomed")
pending = [farm.submit(network(f"orphan{{n}}", seconds=0.4), model="scripted") for n in range(60)]
print("asked", flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as doomed:
        assert doomed.stdout is not None and doomed.stdout.readline() == b"asked\n"
        ours = Farm.connect("lab", namespace="npas-tests", client="ours")
        shared = ours.submit(network("orphan59", seconds=0.4), model=MODEL)
        until(lambda: bool(runs(lab_folder, "orphan0")))
        doomed.kill()
    assert shared.result(60).artifact_key == "orphan59-None-0"
    measure(lab, "after the orphans")
    until(lambda: not any(d.job_key for d in lab.devices()))
    begun = sum(bool(runs(lab_folder, f"orphan{n}")) for n in range(59))
    assert 1 <= begun <= 50
    # Asked again, they are measured like anything else.
    dropped = next(n for n in range(59) if not runs(lab_folder, f"orphan{n}"))
    assert measure(lab, f"orphan{dropped}", script={"seconds": 0.4}).latency_ms == 1.5


def test_a_search_that_comes_later_does_not_wait_for_the_other_to_end(lab: Farm, lab_folder: Path) -> None:
    first, second = (Farm.connect("lab", namespace="npas-tests", client=name) for name in ("first", "second"))
    pending = [first.submit(network(f"first{n}", seconds=0.1), model=MODEL) for n in range(60)]
    until(lambda: bool(runs(lab_folder, "first3")))
    pending += [second.submit(network(f"second{n}", seconds=0.1), model=MODEL) for n in range(6)]
    for p in pending:
        p.result(60)
    keys = [line.split()[1].removesuffix("-None-0") for line in (lab_folder / "log").read_text().splitlines()]
    order = [key for key in keys if key.startswith(("first", "second"))]
    begin, end = order.index("second0"), order.index("second5")
    # Turn by turn; three devices are at work at once, and what is not compiled yet misses a turn.
    assert end - begin <= 20, " ".join(order)
    assert len(order) - end > 10, " ".join(order)


def test_a_device_is_attached_detached_and_attached_elsewhere(lab: Farm, lab_folder: Path) -> None:
    from standins import ScriptedDevice

    spec = ScriptedDevice("extra", lab_folder / "log", model="another", resource="phone_d1")
    lab.attach(spec)
    pending = lab.submit(network("extra", extra="hang"), model="another")
    until(lambda: "extra" in runs(lab_folder, "extra"))
    lab.detach("extra")
    assert "extra" not in [d.serial for d in lab.devices()]
    with pytest.raises(NoSuchDevice, match="no device 'extra' is attached"):
        lab.detach("extra")
    # What it ran waits for another one of its model: here, itself, on another node.
    lab.attach(ScriptedDevice("spare", lab_folder / "log", model="another", resource="phone_d2"))
    assert pending.result(60).device.serial == "spare"
    lab.detach("spare")
    kinds = [entry.kind for entry in lab.history("extra")]
    assert kinds[:2] == [Kind.ATTACHED, Kind.JOINED] and Kind.DETACHED in kinds


def test_each_model_has_its_own_answer_and_its_own_target(lab: Farm, lab_folder: Path) -> None:
    from standins import ScriptedDevice

    lab.attach(ScriptedDevice("slow one", lab_folder / "log", model="slow", resource="phone_d1"))
    lab.attach(ScriptedDevice("arm one", lab_folder / "log", model="arm", target="aarch64-neon", resource="phone_d1"))
    pending = lab.submit_each(network("both", **{"slow one": "crash"}), models=[MODEL, "slow", "arm"])
    assert {model: pending[model].result(60).device.model for model in (MODEL, "arm")} == {MODEL: MODEL, "arm": "arm"}
    with pytest.raises(RunnerFailed, match="on slow one"):
        pending["slow"].result(60)
    compiled = [line.split()[1] for line in (lab_folder / "compiled").read_text().splitlines() if "both" in line]
    assert sorted(compiled) == ["aarch64-neon", "x86_64-avx2"]  # two models of one target share an artifact
    for serial in ("slow one", "arm one"):
        lab.detach(serial)


def test_a_phone_host_is_followed_dies_and_comes_back(lab: Farm, lab_folder: Path, ray_cluster: Any) -> None:
    plugged = lab_folder / "plugged"
    (plugged / "ph1").touch()
    node = {"num_cpus": 0, "resources": {"phone_host": 1}, "object_store_memory": 10**8}
    host = ray_cluster.add_node(**node)
    until(lambda: state(lab, "ph1") is DeviceState.HEALTHY)
    # Phones come and go.
    (plugged / "ph2").touch()
    until(lambda: state(lab, "ph2") is DeviceState.HEALTHY)
    (plugged / "ph2").unlink()
    until(lambda: state(lab, "ph2") is None)
    # The host dies in the middle: the work is redone elsewhere.
    pending = [lab.submit(network(f"n{n}", seconds=0.5), model=MODEL) for n in range(16)]
    until(lambda: any("ph1" in runs(lab_folder, f"n{n}") for n in range(16)))
    ray_cluster.remove_node(host, allow_graceful=False)
    outcomes = [p.outcome(60) for p in pending]
    assert not [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert state(lab, "ph1") is DeviceState.GONE
    # And is back, as a node that Ray has not seen before, with another phone besides.
    (plugged / "ph3").touch()
    host = ray_cluster.add_node(**node)
    until(lambda: state(lab, "ph1") is state(lab, "ph3") is DeviceState.HEALTHY, timeout_s=60)
    later = [lab.submit(network(f"m{n}", seconds=0.4), model=MODEL) for n in range(10)]
    assert {p.result(60).device.serial for p in later} == {"d0", "d1", "d2", "ph1", "ph3"}
    for serial in ("ph1", "ph3"):
        (plugged / serial).unlink()
    until(lambda: [d.serial for d in lab.devices()] == ["d0", "d1", "d2"])
    ray_cluster.remove_node(host)


def test_a_journal_that_is_held_or_damaged_starts_no_farm(lab: Farm, start_farm: StartFarm, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"another farm writes .*lab\.sqlite"):
        start_farm("d0", journal=ray.get(broker(lab).config.remote()).journal, name="second")
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"")
    with pytest.raises(JournalError, match=r"damaged\.sqlite is damaged .*Restore it"):
        start_farm("d0", journal=damaged, name="second")
    with pytest.raises(LeaseError, match="no farm"):
        Farm.connect("second", namespace="npas-tests")
