"""One Ray cluster of three nodes for all tests of the shells that want it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_farm.fleet.devices import phone_resource
from device_farm.testing.shared_cluster import SharedCluster

HERE = Path(__file__).parent
SERIALS = ("d0", "d1", "d2")


# Room for several farms at once: each of them takes one unit. Device d<n> is attached to node n.
_resources = [{"resources": {phone_resource(serial): 9}} for serial in SERIALS]
_shared = SharedCluster(namespace="npas-tests", head=_resources[0], nodes=_resources[1:], paths=[HERE])


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
