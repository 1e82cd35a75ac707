"""A Ray cluster to work on: one of our own on this machine, or somebody's."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from npas_ray.errors import InfrastructureError

LOCAL = "local"
NAMESPACE = "npas"
# weights and artifacts are small; Ray's default takes 30 % of the memory
OBJECT_STORE_BYTES = 512 * 1024**2
CONNECT_S = 10.0
# Ray replaces 127.0.0.1 by an address of the machine that others can reach, but no other address of the loopback range
LOOPBACK = "127.0.0.2"


# Ray reads these when it is first imported
_SETTINGS = {
    # Ray executes what it is sent, so nobody may send without the token; a local start makes one in ~/.ray
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own table would fight with our progress
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # what goes wrong is said once, by us
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: it must arrive as KeyboardInterrupt
}


def prepare_ray() -> None:
    """Sets how Ray is to behave. Call it before anything imports Ray.

    Raises InfrastructureError if Ray was imported before without token authentication.
    """
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InfrastructureError("Ray was imported without RAY_AUTH_MODE=token; set it in the environment")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(address: str, *, num_cpus: int, resources: Mapping[str, float] | None = None) -> Iterator[None]:
    """Connects this process to Ray for the length of the with statement.

    `address` "local" starts a cluster on the loopback range, with `num_cpus` and custom `resources`, that ends with
    this process however it ends; anything else is the address of a running cluster. Every node demands a token (see
    docs/security.md); `prepare_ray` was called before.

    Raises InfrastructureError if the cluster cannot be reached or started.
    """
    import ray

    _require_listener(address)
    try:
        if address == LOCAL:
            ray.init(
                address="local",  # never a cluster that happens to run on this machine
                num_cpus=num_cpus,
                resources=dict(resources or {}),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address=LOOPBACK,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        else:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises whatever its layers raise
        said = f"cannot use the Ray cluster {address!r}: {in_a_line(error)}{_likely(address, error)}"
        raise InfrastructureError(said) from error
    try:
        with _interruptible():
            yield
    finally:
        ray.shutdown()


def clusters_here() -> list[str]:
    """Addresses of the Ray clusters that this machine is a node of, as its processes tell; also of other users."""
    found: dict[str, None] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words and words[0].endswith(b"/raylet"):
                addresses = [word.partition(b"=")[2].decode() for word in words if word.startswith(b"--gcs-address=")]
                found |= dict.fromkeys(addresses)
    return sorted(found)


def _likely(address: str, error: Exception) -> str:
    """What to do, where that can be told."""
    if address != "auto" or clusters_here():
        return _TOKEN if "Failed to connect" in str(error) else ""  # somebody listens there
    return (
        "; no Ray cluster runs on this machine. Start one with `ray get-auth-token"
        " --generate` (once) and `RAY_AUTH_MODE=token ray start --head --node-ip-address=127.0.0.2 --port=6379`"
    )


_TOKEN = (
    "; it listens there, so the token is likely another one: RAY_AUTH_TOKEN, or ~/.ray/auth_token, must be that of the"
    " machine that started the cluster (or its version of Ray is not this one)"
)


def _require_listener(address: str) -> None:
    """Ray itself tries for minutes where nobody listens. Raises InfrastructureError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise InfrastructureError(
            f"nobody answers at {address} ({error}); is the cluster up, and is that the address of its head node?"
        ) from error


def in_a_line(error: Exception) -> str:
    """What an error of Ray says: the exception at the end of a remote traceback, or its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    causes = (line for line in reversed(lines) if re.match(r"[A-Za-z_.]*(Error|Exception|Interrupt)\b: ?", line))
    return next(causes, lines[0])


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM arrive as KeyboardInterrupt, and are remembered for `raise_if_interrupted`.

    Ray's own handler of SIGTERM, made by ray.init, ends the process on the spot.
    """
    _interrupted.clear()
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def interrupt(*_: object) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_interrupted = threading.Event()


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt if one was raised before and swallowed: callbacks of Tune's loggers catch everything."""
    if _interrupted.is_set():
        raise KeyboardInterrupt
