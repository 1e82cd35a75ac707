"""One Ray cluster of three nodes for all tests of the shells that want it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SERIALS = ("d0", "d1", "d2")


class _Shared:
    """The cluster, from the first test of this folder that wants it to the last test of this folder."""

    cluster: Any = None
    environment: dict[str, str]

    def start(self) -> Any:
        if self.cluster is not None:
            return self.cluster
        sys.path.insert(0, str(HERE))
        self.environment = dict(os.environ)
        paths = [str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        from ray.cluster_utils import Cluster

        from device_farm.fleet.devices import phone_resource

        memory: dict[str, Any] = {"object_store_memory": 10**8}
        # Room for several farms at once: each of them takes one unit.
        head = {"num_cpus": 2, "include_dashboard": False, "resources": {phone_resource("d0"): 9}, **memory}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        for serial in SERIALS[1:]:
            self.cluster.add_node(num_cpus=0, resources={phone_resource(serial): 9}, **memory)
        ray.init(address=self.cluster.address, namespace="npas-tests", log_to_driver=False)
        return self.cluster

    def stop(self) -> None:
        if self.cluster is None:
            return
        import ray

        ray.shutdown()
        self.cluster.shutdown()
        self.cluster = None
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path.remove(str(HERE))


_shared = _Shared()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """After the fixtures' own ends: other folders start a Ray of their own."""
    if nextitem is None or HERE not in nextitem.path.parents:
        _shared.stop()


@pytest.fixture(scope="module")
def ray_cluster() -> Any:
    """Three raylets; device d<n> is attached to node n by its resource.

    Of a module, not of the session: the hook above may stop the cluster between two modules, as pytest-xdist gives the
    files of a folder out in any order, and a stopped cluster is started anew here.
    """
    return _shared.start()


_numbers = itertools.count()


def _starter(folder: Path, farms: list[Any]) -> Callable[..., Any]:
    from standins import ScriptedDevice

    from device_farm.fleet.devices import phone_resource
    from device_farm.fleet.farm import Farm, FarmConfig
    from device_farm.fleet.words import Policy
    from device_farm.measurement.types import Protocol

    def start(*serials: str, opens: str = "well", **changes: Any) -> Farm:
        devices = tuple(
            ScriptedDevice(serial, folder / "log", resource=phone_resource(serial), opens=opens) for serial in serials
        )
        config: dict[str, Any] = {
            "devices": devices,
            "cache_dir": folder,
            "protocol": Protocol(deadline_s=2.0),
            "lease_timeout_s": 2.5,
            "policy": Policy(cool_s=0.05, absent_s=20, infrastructure_attempts=3, same_device_attempts=2),
            "name": f"farm-{next(_numbers)}",
            "namespace": "npas-tests",
            "compile_with": "standins:compile_script",
            "measure_with": "standins:ScriptedMeter",
        } | changes
        farm = Farm.start(FarmConfig(**config))
        farms.append(farm)
        return farm

    return start


@pytest.fixture
def start_farm(ray_cluster: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts farms of the scripted devices that are named; they work in tmp_path and are stopped with the test."""
    farms: list[Any] = []
    yield _starter(tmp_path, farms)
    for farm in farms:
        farm.stop()


@pytest.fixture(scope="module")
def farms_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared farms work."""
    return tmp_path_factory.mktemp("farms")


@pytest.fixture(scope="module")
def solo(ray_cluster: Any, farms_folder: Path) -> Iterator[Any]:
    """A shared farm of one device."""
    farm = _starter(farms_folder / "solo", [])("d0")
    yield farm
    farm.stop()


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a module, as its farm is: tests read what was compiled and run there since the farm's first life."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def started_lab(ray_cluster: Any, lab_folder: Path) -> Iterator[Any]:
    """A farm of everything, see standins.lab_config. Started by a driver that is gone by the time that it is used."""
    from device_farm.fleet.farm import Farm

    program = f"""
import ray
from pathlib import Path
from standins import lab_config
from device_farm.fleet.farm import Farm
ray.init(address={ray_cluster.address!r}, log_to_driver=False)
Farm.start(lab_config(Path({str(lab_folder)!r})))
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)
    farm = Farm.connect("lab", namespace="npas-tests")
    yield farm
    farm.stop()


@pytest.fixture
def lab(started_lab: Any) -> Any:
    """As a test wants it: with its three devices, and nothing that speaks against them."""
    for serial in ("d0", "d1", "d2"):
        started_lab.release(serial)
    return started_lab
