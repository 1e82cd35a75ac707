"""One Ray cluster of several raylets on this machine for all tests of a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import device_farm

_ROOT = Path(device_farm.__file__).parent.parent
_MEMORY = 10**8  # bytes of each node's object store


class SharedCluster:
    """Started by the first test that wants it; whoever made it stops it after the last one, and it may start anew.

    `head` and each of `nodes` are arguments of Ray's nodes. Modules in `paths` can be imported here and by workers.
    """

    def __init__(
        self,
        *,
        namespace: str,
        head: Mapping[str, Any] | None = None,
        nodes: Sequence[Mapping[str, Any]] = (),
        paths: Sequence[Path] = (),
    ) -> None:
        self._namespace = namespace
        self._head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": _MEMORY, **(head or {})}
        self._nodes = [{"num_cpus": 0, "object_store_memory": _MEMORY, **node} for node in nodes]
        self._paths = [str(path) for path in paths]
        self._cluster: Any = None
        self._environment: dict[str, str] = {}

    def start(self) -> Any:
        """A ray.cluster_utils.Cluster that this process is connected to."""
        if self._cluster is not None:
            return self._cluster
        self._environment = dict(os.environ)
        sys.path[:0] = self._paths
        paths = [str(_ROOT), *self._paths, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args=self._head)
        for node in self._nodes:
            self._cluster.add_node(**node)
        ray.init(address=self._cluster.address, namespace=self._namespace, log_to_driver=False)
        return self._cluster

    def stop(self) -> None:
        """Nothing happens if it does not run."""
        if self._cluster is None:
            return
        import ray

        ray.shutdown()
        self._cluster.shutdown()
        self._cluster = None
        os.environ.clear()
        os.environ.update(self._environment)
        for path in self._paths:
            sys.path.remove(path)
