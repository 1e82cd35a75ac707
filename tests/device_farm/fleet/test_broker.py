"""The broker outlives its own death, its devices and its clients. On a real Ray of several nodes.

`lab` is a shared farm of three devices with a journal: every test asks for networks of its own name, and leaves the
devices as they were.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from device_farm.errors import JournalError, LeaseError, NoSuchDevice, Poisoned, RunnerFailed
from device_farm.fleet.farm import Farm, FarmDevice
from device_farm.fleet.journal import Kind
from device_farm.fleet.words import DeviceState, Failed

StartFarm = Callable[..., Farm]
MODEL = "scripted"


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(ray_cluster: Any, lab_folder: Path, start_farm_in: Callable[..., StartFarm]) -> Iterator[Farm]:
    start = start_farm_in(lab_folder, [])
    farm = start("d0", "d1", "d2", journal=lab_folder / "lab.sqlite", grace_s=0.5, lease_timeout_s=6, name="lab")
    yield farm
    farm.stop()


def network(key: str, **script: Any) -> Any:
    from standins import network as make

    return make(key, **script)


def measure(farm: Farm, key: str, *, replicate: int = 0, **script: Any) -> Any:
    return farm.measure(network(key, **script), model=MODEL, timeout_s=60, replicate=replicate)


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


def state(farm: Farm, serial: str) -> DeviceState | None:
    return next((device.state for device in farm.devices() if device.serial == serial), None)


def view(farm: Farm, serial: str) -> FarmDevice:
    return next(device for device in farm.devices() if device.serial == serial)


def broker(farm: Farm) -> Any:
    return ray.get_actor(farm.name, namespace=farm.namespace)


def kill_broker(farm: Farm) -> None:
    os.kill(ray.get(broker(farm).pid.remote()), signal.SIGKILL)


def test_a_broker_that_was_killed_knows_what_it_knew(lab: Farm, lab_folder: Path) -> None:
    answers = [measure(lab, f"known{n}") for n in range(4)]
    for serial in ("d1", "d2"):
        lab.quarantine(serial, reason="its sentinel is off")
    with pytest.raises(RunnerFailed, match="2 times on d0, the only usable device"):
        measure(lab, "crash", **{"*": "crash"})
    under_way = [lab.submit(network(f"underway{n}", seconds=0.3), model=MODEL) for n in range(4)]
    until(lambda: bool(runs(lab_folder, "underway1")))
    pid = ray.get(broker(lab).pid.remote())
    kill_broker(lab)

    # Answers, also of what failed for good, and of calls that were waiting when it died.
    assert [p.result(60).artifact_key for p in under_way] == [f"underway{n}-None-0" for n in range(4)]
    assert len(runs(lab_folder, "underway0")) == 1  # it was acknowledged to nobody, and yet it is not done again
    assert ray.get(broker(lab).pid.remote()) != pid
    assert [measure(lab, f"known{n}") for n in range(4)] == answers
    assert [len(runs(lab_folder, f"known{n}")) for n in range(4)] == [1] * 4
    with pytest.raises(RunnerFailed, match="2 times on d0") as caught:
        measure(lab, "crash", **{"*": "crash"})
    assert len(caught.value.__notes__) == 2 and runs(lab_folder, "crash") == ["d0", "d0"]
    # Quarantines, until they are lifted.
    until(lambda: state(lab, "d1") is state(lab, "d2") is DeviceState.QUARANTINED)
    assert {measure(lab, f"after{n}").device.serial for n in range(3)} == {"d0"}
    assert view(lab, "d1").reason == "its sentinel is off"
    for serial in ("d1", "d2"):
        lab.release(serial)
        assert state(lab, serial) is DeviceState.HEALTHY
    # Evidence: the program has harmed one device in the earlier life, so it may harm one more and no third.
    with pytest.raises(Poisoned, match="2 different devices") as poisoned:
        measure(lab, "crash", replicate=1, **{"*": "crash"})
    ran = runs(lab_folder, "crash")
    assert ran[:2] == ["d0", "d0"] and len(ran) == 3 and ran[2] in ("d1", "d2")
    fences = [int(note.split()[1]) for note in poisoned.value.__notes__]
    assert fences[0] < fences[1] < fences[2] - 10**6  # another life's


def test_the_history_of_a_device(lab: Farm) -> None:
    lab.quarantine("d2", reason="a crack in its screen")
    lab.release("d2")
    measure(lab, "history", d0="well", d1="well")
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


def test_what_nobody_waits_for_any_more_is_not_measured(lab: Farm, lab_folder: Path, ray_cluster: Any) -> None:
    program = f"""
import ray, time
from standins import network
from device_farm.fleet.farm import Farm
ray.init(address={ray_cluster.address!r}, log_to_driver=False)
farm = Farm.connect("lab", namespace="npas-tests", client="doomed")
pending = [farm.submit(network(f"orphan{{n}}", seconds=1), model="scripted") for n in range(30)]
print("asked", flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as doomed:
        assert doomed.stdout is not None and doomed.stdout.readline() == b"asked\n"
        ours = Farm.connect("lab", namespace="npas-tests", client="ours")
        shared = ours.submit(network("orphan29", seconds=1), model=MODEL)
        until(lambda: bool(runs(lab_folder, "orphan0")))
        doomed.kill()
    assert shared.result(60).artifact_key == "orphan29-None-0"
    measure(lab, "after the orphans")
    time.sleep(1.5)
    begun = sum(bool(runs(lab_folder, f"orphan{n}")) for n in range(29))
    assert 1 <= begun <= 24 and not any(d.job_key for d in lab.devices())
    # Asked again, they are measured like anything else.
    dropped = next(n for n in range(29) if not runs(lab_folder, f"orphan{n}"))
    assert measure(lab, f"orphan{dropped}", seconds=1).latency_ms == 1.5


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


def test_each_model_has_its_own_answer(lab: Farm, lab_folder: Path) -> None:
    from standins import ScriptedDevice

    lab.attach(ScriptedDevice("slow one", lab_folder / "log", model="slow", resource="phone_d1"))
    pending = lab.submit_each(network("both", **{"slow one": "crash"}), models=[MODEL, "slow"])
    assert pending[MODEL].result(60).device.model == MODEL
    with pytest.raises(RunnerFailed, match="on slow one"):
        pending["slow"].result(60)
    assert (lab_folder / "compiled").read_text().split().count("both") == 1
    lab.detach("slow one")


def test_devices_attached_by_hand_stay_when_the_broker_dies(start_farm: StartFarm, tmp_path: Path) -> None:
    from device_farm.fleet.farm import LocalDevice

    farm = start_farm("d0", "d1", measure_with="standins:AnyMeter")
    farm.attach(LocalDevice(name="by hand", model="host", num_cpus=0))
    farm.detach("d1")
    until(lambda: state(farm, "by hand") is DeviceState.HEALTHY)
    kill_broker(farm)
    until(lambda: state(farm, "by hand") is DeviceState.HEALTHY)
    assert [d.serial for d in farm.devices()] == ["d0", "by hand"]
    # The journal was for this farm's life only.
    (folder,) = (tmp_path / "farms").iterdir()
    assert (folder / "journal.sqlite").exists()
    farm.stop()
    assert not folder.exists()


def test_a_farm_continues_the_journal_of_another_and_not_a_damaged_one(start_farm: StartFarm, tmp_path: Path) -> None:
    journal = tmp_path / "kept.sqlite"
    farm = start_farm("d0", journal=journal)
    answer = measure(farm, "kept")
    with pytest.raises(JournalError, match=r"another farm writes .*kept\.sqlite"):
        start_farm("d0", journal=journal)
    farm.stop()
    farm = start_farm("d1", journal=journal)
    assert measure(farm, "kept") == answer and answer.device.serial == "d0"
    farm.stop()
    journal.with_name("kept.sqlite-wal").unlink()
    journal.write_bytes(b"")
    with pytest.raises(JournalError, match=r"kept\.sqlite is damaged .*Restore it"):
        start_farm("d0", journal=journal)
    with pytest.raises(LeaseError, match="no farm"):
        Farm.connect(farm.name, namespace=farm.namespace)


def test_a_phone_host_is_followed_dies_and_comes_back(ray_cluster: Any, start_farm: StartFarm, tmp_path: Path) -> None:
    from standins import FolderSource

    from device_farm.fleet.farm import PhoneHost

    plugged = tmp_path / "plugged"
    plugged.mkdir()
    (plugged / "ph1").touch()
    node = {"num_cpus": 0, "resources": {"phone_host": 1}, "object_store_memory": 10**8}
    host = ray_cluster.add_node(**node)
    farm = start_farm("d0", hosts=(PhoneHost(FolderSource(plugged, tmp_path / "log"), resource="phone_host"),))
    until(lambda: state(farm, "ph1") is DeviceState.HEALTHY)
    # Phones come and go.
    (plugged / "ph2").touch()
    until(lambda: state(farm, "ph2") is DeviceState.HEALTHY)
    (plugged / "ph2").unlink()
    until(lambda: state(farm, "ph2") is None)
    # The host dies in the middle.
    pending = [farm.submit(network(f"n{n}", seconds=0.5), model=MODEL) for n in range(8)]
    until(lambda: any("ph1" in runs(tmp_path, f"n{n}") for n in range(8)))
    ray_cluster.remove_node(host, allow_graceful=False)
    outcomes = [p.outcome(60) for p in pending]
    assert not [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    until(lambda: state(farm, "ph1") is DeviceState.GONE)
    # And is back, as a node that Ray has not seen before, with another phone besides.
    (plugged / "ph3").touch()
    host = ray_cluster.add_node(**node)
    until(lambda: state(farm, "ph1") is state(farm, "ph3") is DeviceState.HEALTHY, timeout_s=60)
    later = [farm.submit(network(f"m{n}", seconds=0.4), model=MODEL) for n in range(6)]
    assert {p.result(60).device.serial for p in later} == {"d0", "ph1", "ph3"}
    farm.stop()
    ray_cluster.remove_node(host)
