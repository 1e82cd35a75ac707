"""kill -9 of the Ray node that phones are plugged into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_farm.fleet.entries import Kind
from device_farm.fleet.words import DeviceState, Policy
from device_farm.measurement.types import Protocol
from device_farm.testing.phone_lab import PhoneLab
from device_farm.testing.tiny_farm import tiny_network

HERE, THERE, ONLY_THERE = "emu-x86-fast", "emu-x86-fast", "emu-x86-slow"
RESOURCE = "chaos_phone_host"
NODE = {"num_cpus": 0, "resources": {RESOURCE: 1}, "object_store_memory": 10**8}


def _is_busy(lab: PhoneLab, number: int) -> bool:
    device = lab.device(number)
    return device is not None and device.job_key is not None


def test_the_work_is_redone_elsewhere_or_waits_and_the_phones_come_back(ray_cluster: Any, tmp_path: Path) -> None:
    node = ray_cluster.add_node(**NODE)
    config = {
        "compile_with": "device_farm.testing.tiny_farm:compile_tiny",
        "protocol": Protocol(warmup_s=0.01, min_time_s=0.5, deadline_s=20.0),
        "policy": Policy(cool_s=0.2, max_cool_s=2.0, absent_s=300.0),
    }
    models = [HERE, HERE, THERE, ONLY_THERE]
    hosts = [(None, (0, 1)), (RESOURCE, (2, 3))]
    with PhoneLab(tmp_path, models, name="hosts", pace=1.0, hosts=hosts, config=config) as lab:
        lab.until(lambda: lab.are_well(0, 1, 2, 3), timeout_s=120)
        here = [lab.farm.submit(tiny_network(1), model=HERE, replicate=n) for n in range(30)]
        there = [lab.farm.submit(tiny_network(1), model=ONLY_THERE, replicate=n) for n in range(10)]
        # Both phones of the host are at work.
        lab.until(lambda: all(_is_busy(lab, n) for n in (2, 3)), timeout_s=120)
        ray_cluster.remove_node(node, allow_graceful=False)

        # What has a phone elsewhere is redone there.
        results = [job.result(240) for job in here]
        after = {result.device.serial for result in results}
        assert after & set(lab.phones.addresses[:2])
        lab.until(lambda: lab.state(2) is lab.state(3) is DeviceState.GONE)
        lost = [e for n in (2, 3) for e in lab.history(n) if e.kind is Kind.STRUCK]
        assert {e.serial for e in lost} == set(lab.phones.addresses[2:])
        assert {(e.data["fault"]["blame"], e.data["fault"]["error"]) for e in lost} == {("lost", "DeviceGone")}
        # Nothing is left on the phones of the dead host, though nobody could tell them.
        lab.until(lambda: not any(lab.phones[n].status.alive for n in (2, 3)), timeout_s=30)

        # What has not, waits; the phones come back with the node, and serve.
        node = ray_cluster.add_node(**NODE)
        assert {job.result(240).device.serial for job in there} == {lab.phones.addresses[3]}
        lab.until(lambda: lab.are_well(0, 1, 2, 3), timeout_s=120)
        later = [lab.farm.submit(tiny_network(1), model=HERE, replicate=n) for n in range(100, 112)]
        assert {job.result(240).device.serial for job in later} >= {lab.phones.addresses[2]}
        keys = [answer.key for answer in lab.answers()]
        assert len(keys) == len(set(keys)) == 30 + 10 + 12
    ray_cluster.remove_node(node)
