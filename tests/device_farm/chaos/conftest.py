"""One Ray cluster for this folder: a head, and nodes that a test adds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class _Shared:
    """The cluster, from the first test of this folder that wants it to the last test of this folder."""

    cluster: Any = None
    environment: dict[str, str]

    def start(self) -> Any:
        if self.cluster is not None:
            return self.cluster
        self.environment = dict(os.environ)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 10**8}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=self.cluster.address, namespace="npas-lab", log_to_driver=False)
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


_shared = _Shared()


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
