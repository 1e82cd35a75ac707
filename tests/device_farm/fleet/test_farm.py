"""The farm's shells on a real Ray cluster of three nodes, with devices that misbehave by script.

`solo` and `lab` are shared farms of one and three devices: every test asks for networks of its own name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from device_farm.errors import (
    DeadlineExceeded,
    LeaseError,
    NoSuchDevice,
    Poisoned,
    Refused,
    RunnerFailed,
    Unstable,
    UnsupportedOperator,
    WrongAnswer,
)
from device_farm.fleet.entries import Kind
from device_farm.fleet.farm import Farm, FarmConfig, FarmDevice, LocalDevice
from device_farm.fleet.membership import check_admissible
from device_farm.fleet.words import DeviceState, Failed
from device_farm.measurement.types import DeviceFacts

StartFarm = Callable[..., Farm]
MODEL = "scripted"


def network(key: str, **script: Any) -> Any:
    from standins import network as make

    return make(key, **script)


def measure(farm: Farm, key: str, **script: Any) -> Any:
    return farm.measure(network(key, **script), model=MODEL, timeout_s=60)


def runs(folder: Path, key: str) -> list[str]:
    """Serials of the devices that really ran a network, in order."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[0] for line in lines if line.split()[1].startswith(f"{key}-")]


def compilations(folder: Path, key: str) -> int:
    return [line.split()[0] for line in (folder / "compiled").read_text().splitlines()].count(key)


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def device(farm: Farm, serial: str) -> FarmDevice:
    return next(device for device in farm.devices() if device.serial == serial)


def times(farm: Farm, serial: str, kind: Kind) -> int:
    """How often the journal tells this of a device."""
    return [entry.kind for entry in farm.history(serial, limit=10_000)].count(kind)


def processes() -> dict[int, str]:
    """Command lines of all processes, by pid; empty for zombies."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return {pid: command for pid, command in found.items() if command}


@pytest.fixture
def at_solo(farms_folder: Path) -> Path:
    return farms_folder / "solo"


def test_it_measures_and_says_where(lab: Farm, lab_folder: Path) -> None:
    measurement = measure(lab, "n")
    assert measurement.latency_ms == 1.5
    assert runs(lab_folder, "n") == [measurement.device.serial] and measurement.device.model == MODEL
    assert {d.state for d in lab.devices()} == {DeviceState.HEALTHY}
    assert list((lab_folder / "devices").glob("d[0-2]/*/artifact-*")) == []


def test_the_same_request_is_measured_once_by_however_many_it_is_asked(lab: Farm, lab_folder: Path) -> None:
    @ray.remote(num_cpus=0)
    def elsewhere(farm: Farm, graph: Any) -> Any:
        return farm.measure(graph, model=MODEL, timeout_s=30)

    graph = network("same", seconds=0.5)
    pending = [lab.submit(graph, model=MODEL) for _ in range(5)]
    others = ray.get([elsewhere.remote(lab, graph) for _ in range(2)])
    answers = [p.result(30) for p in pending] + others + [lab.measure(graph, model=MODEL)]
    assert all(answer == answers[0] for answer in answers)
    assert len(runs(lab_folder, "same")) == compilations(lab_folder, "same") == 1


def test_weights_and_seed_tell_requests_apart(lab: Farm, lab_folder: Path) -> None:
    one, other = {"w": np.ones(2, np.float32)}, {"w": np.zeros(2, np.float32)}
    for kwargs in ({"weights": one}, {"weights": other}, {"weights": dict(one)}, {"seed": 1}, {"seed": 2}):
        lab.measure(network("w"), model=MODEL, timeout_s=30, **kwargs)
    assert len(runs(lab_folder, "w")) == 4


def test_devices_work_side_by_side(lab: Farm) -> None:
    pending = [lab.submit(network(f"side{n}", seconds=0.3), model=MODEL) for n in range(6)]
    assert {p.result(30).device.serial for p in pending} == {"d0", "d1", "d2"}


def test_a_hanging_device_loses_its_lease_and_the_job_is_done_elsewhere(lab: Farm, lab_folder: Path) -> None:
    began = time.monotonic()
    measurement = measure(lab, "hang", **{"*": "hang once"})
    assert time.monotonic() - began > 2.5
    hung, other = runs(lab_folder, "hang")
    assert measurement.device.serial == other != hung
    # The restarted device works, and nothing of the hung run is left.
    until(lambda: device(lab, hung).state is DeviceState.HEALTHY)
    pending = [lab.submit(network(f"after{n}", seconds=0.2), model=MODEL) for n in range(3)]
    assert hung in {p.result(30).device.serial for p in pending}
    until(lambda: not any(str(lab_folder / "devices") in command for command in processes().values()))


def test_a_killed_device_actor_comes_back_and_the_job_is_done(solo: Farm, at_solo: Path) -> None:
    assert measure(solo, "kill", d0="kill actor once").device.serial == "d0"
    assert runs(at_solo, "kill") == ["d0", "d0"]


def test_an_idle_device_actor_that_dies_is_noticed_without_a_job(solo: Farm) -> None:
    pid = measure(solo, "idle").conditions["pid"]
    failed = device(solo, "d0").failed
    joined = times(solo, "d0", Kind.JOINED)
    os.kill(pid, signal.SIGKILL)
    # By the journal: the device itself looks the same before the loss is noticed and after it was made good.
    until(lambda: times(solo, "d0", Kind.JOINED) > joined and device(solo, "d0").state is DeviceState.HEALTHY)
    assert measure(solo, "idle again").conditions["pid"] != pid
    assert device(solo, "d0").failed == failed


def test_a_stopped_process_cannot_hold_a_job(solo: Farm) -> None:
    stopped = measure(solo, "stop").conditions["pid"]
    os.kill(stopped, signal.SIGSTOP)
    assert measure(solo, "stop again").conditions["pid"] != stopped
    until(lambda: stopped not in processes())


def test_a_wrong_answer_is_never_a_latency(lab: Farm, lab_folder: Path) -> None:
    # Two devices compute rightly: theirs is the answer, whoever was asked first.
    for n in range(3):
        assert measure(lab, f"flipped{n}", d0="wrong").device.serial != "d0"
    # All compute wrongly: poison with its evidence, and the second time from memory. No third device is harmed.
    for _ in range(2):
        with pytest.raises(Poisoned, match=r"2 different devices.*WrongAnswer.*got 41") as caught:
            measure(lab, "wrong", **{"*": "wrong"})
        assert type(caught.value) is Poisoned and len(caught.value.__notes__) == 2
    assert len(runs(lab_folder, "wrong")) == len(set(runs(lab_folder, "wrong"))) == 2


def test_a_crashing_artifact_harms_two_devices_and_no_third(lab: Farm, lab_folder: Path) -> None:
    outcome = lab.submit(network("crashing", **{"*": "crash"}), model=MODEL).outcome(30)
    assert isinstance(outcome, Failed) and outcome.error == "Poisoned"
    assert [failure.serial for failure in outcome.evidence] == runs(lab_folder, "crashing")
    assert {failure.fault.error for failure in outcome.evidence} == {"RunnerFailed"}


@pytest.mark.parametrize(
    ("fault", "error", "times"),
    [
        ("wrong", WrongAnswer, 2),
        ("crash", RunnerFailed, 2),
        ("refused", Refused, 3),
        ("unstable", Unstable, 3),
        ("deadline", DeadlineExceeded, 3),
    ],
)
def test_the_only_device_says_what_was_wrong(
    solo: Farm, at_solo: Path, fault: str, error: type[Exception], times: int
) -> None:
    with pytest.raises(error) as caught:
        measure(solo, fault, d0=fault)
    assert type(caught.value) is error
    assert len(runs(at_solo, fault)) == len(caught.value.__notes__) == times
    assert measure(solo, f"{fault} over").latency_ms == 1.5


def test_a_lost_device_and_a_bug_in_an_actor_cost_an_attempt_each(solo: Farm, at_solo: Path) -> None:
    for fault in ("gone", "bug"):
        assert measure(solo, fault, d0=f"{fault} once").latency_ms == 1.5
        assert len(runs(at_solo, fault)) == 2


def test_a_network_that_cannot_be_compiled_is_refused_once_for_all(solo: Farm, at_solo: Path) -> None:
    for _ in range(2):
        with pytest.raises(UnsupportedOperator, match="no kernel for erf"):
            measure(solo, "erf", compile="unsupported")
    assert compilations(at_solo, "erf") == 1


def test_a_network_that_kills_the_compiler_kills_two_and_others_compile(lab: Farm, lab_folder: Path) -> None:
    with pytest.raises(LeaseError, match="the compiler broke down: given up after 2 attempts"):
        measure(lab, "segfault", compile="segfault")
    assert compilations(lab_folder, "segfault") == 2
    assert measure(lab, "after segfault").latency_ms == 1.5


def test_a_model_that_nobody_has_is_named(solo: Farm) -> None:
    with pytest.raises(NoSuchDevice, match="no device of model 'pixel'; the farm has scripted"):
        solo.measure(network("n"), model="pixel", timeout_s=30)


def test_a_client_that_cannot_wait_finds_the_answer_later(solo: Farm, at_solo: Path) -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        solo.measure(network("slow", seconds=1), model=MODEL, timeout_s=0.2)
    measure(solo, "slow", seconds=1)
    assert runs(at_solo, "slow") == ["d0"]


def test_a_compiler_that_hangs_is_given_up(start_farm: StartFarm) -> None:
    farm = start_farm("d0", compile_workers=2, compile_timeout_s=1)
    with pytest.raises(LeaseError, match="no answer within the 1 s"):
        measure(farm, "hang", compile="hang")


def test_a_farm_is_found_again_until_it_is_stopped(start_farm: StartFarm, tmp_path: Path) -> None:
    farm = start_farm("d0", name="shared")
    assert start_farm("d0", name="shared") == farm
    assert len(Farm.connect("shared", namespace="npas-tests").devices()) == 1
    with pytest.raises(LeaseError, match="another configuration runs already"):
        start_farm("d0", name="shared", compile_workers=2)
    (journal,) = (tmp_path / "farms").glob("shared-*/journal.sqlite")
    pending = farm.submit(network("n", d0="hang"), model=MODEL)
    farm.stop()
    assert not journal.parent.exists()  # it was for this farm's life only
    with pytest.raises(LeaseError, match="has been stopped"):
        pending.result(30)
    with pytest.raises(LeaseError, match="no farm"):
        measure(farm, "m")
    with pytest.raises(LeaseError, match="no farm"):
        Farm.connect(farm.name, namespace=farm.namespace)
    farm.stop()


def test_devices_that_do_not_start_are_named_with_their_reason(start_farm: StartFarm) -> None:
    with pytest.raises(NoSuchDevice, match=r"d0: Refused: unauthorized: accept the key.*Ray has .* d7 wants 0 CPU"):
        start_farm("d0", "d7", opens="refused", start_timeout_s=15)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"serial": "b"}, None),
        ({"serial": "b", "target": "aarch64-neon"}, "b is aarch64-neon, big, but a .* is x86_64-avx2, big; name"),
        ({"serial": "b", "details": {"processor": "small"}}, "b is x86_64-avx2, small, but a"),
        ({"serial": "b", "threads": 2}, "b is x86_64-avx2, big, of 2 threads, but a"),
        ({"serial": "b", "model": "n", "target": "aarch64-neon"}, None),
        ({"serial": "a", "target": "aarch64-neon"}, None),
        ({"serial": "b", "target": "riscv"}, "'riscv'; the compiler knows x86_64-avx512"),
    ],
)
def test_unequal_devices_do_not_pass_for_one_model(change: dict[str, Any], complaint: str | None) -> None:
    known = DeviceFacts("a", "m", "x86_64-avx2", details={"processor": "big"})
    expectation = contextlib.nullcontext() if complaint is None else pytest.raises(Refused, match=complaint)
    with expectation:
        check_admissible(dataclasses.replace(known, **change), [known])


def test_impossible_configurations_are_refused(tmp_path: Path) -> None:
    cpu0 = LocalDevice(cpu=0)
    for change, complaint in (
        ({"devices": ()}, "at least one device"),
        ({"devices": (cpu0, cpu0)}, "two devices are called 'local-cpu0'"),
        ({"compile_workers": 0}, "compile_workers must be at least 1, got 0"),
        ({"lease_timeout_s": 60.0}, r"lease_timeout_s \(60\) must exceed protocol.deadline_s \(60\)"),
    ):
        config: dict[str, Any] = {"devices": (cpu0,), "cache_dir": tmp_path} | change
        with pytest.raises(ValueError, match=complaint):
            FarmConfig(**config)


@pytest.mark.slow
def test_a_phone_host_dies_and_comes_back(ray_cluster: Any, start_farm: StartFarm, tmp_path: Path) -> None:
    host: dict[str, Any] = {"num_cpus": 0, "resources": {"phone_d9": 1}, "object_store_memory": 10**8}
    node = ray_cluster.add_node(**host)
    farm = start_farm("d0", "d9")
    pending = [farm.submit(network(f"n{n}", seconds=0.5), model=MODEL) for n in range(8)]
    until(lambda: any("d9" in runs(tmp_path, f"n{n}") for n in range(8)))
    ray_cluster.remove_node(node, allow_graceful=False)
    assert [p.result(60).artifact_key for p in pending] == [f"n{n}-None-0" for n in range(8)]
    until(lambda: device(farm, "d9").state is DeviceState.GONE)
    node = ray_cluster.add_node(**host)
    until(lambda: device(farm, "d9").state is DeviceState.HEALTHY, timeout_s=60)
    later = [farm.submit(network(f"m{n}", seconds=0.3), model=MODEL) for n in range(4)]
    assert {p.result(60).device.serial for p in later} == {"d0", "d9"}
    farm.stop()
    ray_cluster.remove_node(node)


def test_the_next_farm_goes_on_with_the_journal(lab: Farm, lab_folder: Path) -> None:
    """The last test of the lab, which is stopped."""
    from standins import lab_config

    answer = measure(lab, "the next", seconds=0.1)
    lab.stop()
    config = lab_config(lab_folder)
    farm = Farm.start(dataclasses.replace(config, devices=config.devices[:1], compile_workers=1, hosts=()))
    assert measure(farm, "the next", seconds=0.1) == answer
    assert len(farm.history(answer.device.serial)) > 3
    farm.stop()
