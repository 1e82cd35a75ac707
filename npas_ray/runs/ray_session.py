"""A Ray cluster to work on: one of our own on this machine, or somebody's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from npas_ray.errors import InfrastructureError

LOCAL = "local"
NAMESPACE = "npas"
# weights and artifacts are small; Ray's default takes 30 % of the memory
OBJECT_STORE_BYTES = 512 * 1024**2


@contextmanager
def ray_session(address: str, *, num_cpus: int, resources: Mapping[str, float] | None = None) -> Iterator[None]:
    """Connects this process to Ray for the length of the with statement.

    `address` "local" starts a cluster on the loopback interface, with `num_cpus` and custom `resources`, that ends with
    this process however it ends; anything else is the address of a running cluster. Every node demands a token (see
    docs/security.md). Raises InfrastructureError if the cluster cannot be reached or started.
    """
    # Ray executes what it is sent, so nobody may send without the token; "local" makes one in ~/.ray if there is none
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Tune's own table would fight with our progress
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray

    try:
        if address == LOCAL:
            ray.init(
                num_cpus=num_cpus,
                resources=dict(resources or {}),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        else:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        raise InfrastructureError(f"cannot use the Ray cluster {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
