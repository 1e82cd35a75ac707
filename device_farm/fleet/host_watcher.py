"""Which devices are attached to a host: described here, and followed by an actor on that host."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from device_farm.errors import FarmError
from device_farm.fleet.devices import DeviceSpec

_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 10.0


@runtime_checkable
class PhoneSource(Protocol):
    """What tells which devices a host has. Implementations are frozen, small and serialisable."""

    def follow(self) -> Iterator[Sequence[DeviceSpec]]:
        """All devices of the host it is called on: now, and again whenever that changes.

        In whatever state they are: why one cannot be reached is found, and said, by its own actor. Raises FarmError
        when they cannot be told; it is called anew then.
        """


@dataclass(frozen=True)
class PhoneHost:
    """Nodes whose devices belong to the farm, for as long as `source` lists them.

    Every living node that has the custom Ray resource `resource`; or the one node `node_id`; or, with neither, the node
    that starts the farm.
    """

    source: PhoneSource
    resource: str | None = None
    node_id: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a watcher saw: the devices of its host, or why they cannot be told."""

    devices: tuple[DeviceSpec, ...] | None
    complaint: str = ""


class HostWatcher:
    """Made a Ray actor by the broker, one on every phone host."""

    def follow(self, source: PhoneSource) -> Iterator[Listing]:
        """Endless. A source that fails is followed anew, a little later each time."""
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                for devices in source.follow():
                    pause_s = _FIRST_RETRY_S
                    yield Listing(tuple(devices))
                complaint = f"{type(source).__name__} has nothing more to tell"
            except FarmError as error:
                complaint = f"{type(error).__name__}: {error}"
            yield Listing(None, complaint)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_RETRY_S)
