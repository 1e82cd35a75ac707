"""Keeps a watcher on every phone host, and passes on what the watchers see. Part of the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from device_farm.fleet.devices import DeviceSpec
from device_farm.fleet.host_watcher import HostWatcher, Listing, PhoneHost

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0


class Hosts:
    """All methods belong to one event loop. `listed` is told a host's name and its devices, pinned to its node."""

    def __init__(
        self, hosts: Sequence[PhoneHost], listed: Callable[[str, Sequence[DeviceSpec]], Awaitable[None]]
    ) -> None:
        self._hosts = hosts
        self._listed = listed
        self._following: dict[tuple[int, str], asyncio.Task[None]] = {}  # by number of the host's entry, and node
        self.complaints: dict[str, str] = {}  # by host, why its devices cannot be told

    async def keep(self) -> None:
        """Endless: finds nodes that come, and follows them until they go."""
        while self._hosts:
            try:
                nodes = await asyncio.to_thread(_living_nodes)
            except RayError as error:
                _log.warning("cannot list Ray's nodes: %s", error)
                nodes = {}
            for number, host in enumerate(self._hosts):
                for node_id, resources in nodes.items():
                    if node_id == host.node_id or (host.resource is not None and host.resource in resources):
                        self._see_to(number, host, node_id)
            await asyncio.sleep(_LOOK_EVERY_S)

    def _see_to(self, number: int, host: PhoneHost, node_id: str) -> None:
        task = self._following.get((number, node_id))
        if task is None or task.done():
            follow = self._follow(f"{number}:{node_id}", host, node_id)
            self._following[number, node_id] = asyncio.get_running_loop().create_task(follow)

    async def _follow(self, name: str, host: PhoneHost, node_id: str) -> None:
        """Ends when the watcher is lost, with its node or alone."""
        pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
        watcher: Any = ray.remote(HostWatcher).options(num_cpus=0, scheduling_strategy=pinned).remote()
        try:
            async for ref in watcher.follow.options(num_returns="streaming").remote(host.source):
                listing: Listing = await ref
                if listing.devices is None:
                    self.complaints[name] = listing.complaint
                    continue
                self.complaints.pop(name, None)
                await self._listed(name, [_pinned(spec, node_id) for spec in listing.devices])
        except RayError as error:
            self.complaints[name] = f"its watcher was lost ({type(error).__name__})"
        except Exception:
            _log.exception("following the phones of %s broke down", name)
            self.complaints[name] = "its watcher broke down, see the broker's log"
        finally:
            ray.kill(watcher)


def _living_nodes() -> dict[str, dict[str, float]]:
    """Resources of every living node, by its id."""
    nodes: list[dict[str, Any]] = cast(Any, ray).nodes()
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def _pinned(spec: DeviceSpec, node_id: str) -> DeviceSpec:
    """To the node that has it: a source does not know where it runs."""
    return cast(DeviceSpec, replace(cast(Any, spec), node_id=node_id))
