"""One Ray cluster for this folder: a head, and nodes that a test adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device_farm.testing.shared_cluster import SharedCluster

HERE = Path(__file__).parent


_shared = SharedCluster(namespace="npas-lab")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """After the fixtures' own ends: other folders start a Ray of their own."""
    if nextitem is None or HERE not in nextitem.path.parents:
        _shared.stop()


@pytest.fixture(scope="module")
def ray_cluster() -> Any:
    """The head alone; it is stopped by the hook above.

    Of a module, not of the session: the hook above may stop the cluster between two modules, as pytest-xdist gives the
    files of a folder out in any order, and a stopped cluster is started anew here.
    """
    return _shared.start()
