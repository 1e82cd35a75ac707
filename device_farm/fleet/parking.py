"""Jobs that no idle device may have now: each waits for what must change, and is not looked at before.

A job may be barred in two ways. Its devices so far: while another usable one of the model has not been tried, it waits
for that. And its artifact's exposure: while as many devices as it may harm run it or have accused it, it waits for one
to end. Jobs that are barred in the same way form a group; when the bar falls, the first of the group goes back to the
queue, and when it has gone from there, the next. So an event costs as much as there are groups, however many jobs wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Entry = tuple[int, int, str]  # (-priority, sequence, key): the order within a group
IsWaiting = Callable[[Entry], bool]  # its job was not settled meanwhile


@dataclass
class Group:
    """Jobs that wait for the same thing. `offered` is the one of them that is back in the queue."""

    artifact_key: str | None = None  # of jobs that wait for its exposure to change
    entries: list[Entry] = field(default_factory=list)
    offered: int | None = None  # its sequence

    def offer(self, is_waiting: IsWaiting) -> Entry | None:
        """The first of the group, if none of it is offered now."""
        while self.entries and self.offered is None:
            entry = heapq.heappop(self.entries)
            if is_waiting(entry):
                self.offered = entry[1]
                return entry
        return None

    @property
    def is_empty(self) -> bool:
        return not self.entries and self.offered is None


class Parking:
    """What is parked of one model."""

    def __init__(self) -> None:
        self._by_tried: dict[frozenset[str], Group] = {}
        self._by_artifact: dict[str, Group] = {}
        self._group_of: dict[int, Group] = {}  # by the sequence of what is offered

    def park_tried(self, entry: Entry, tried: Iterable[str]) -> None:
        """Until a device that is none of `tried` is idle, or no other usable one is left."""
        heapq.heappush(self._by_tried.setdefault(frozenset(tried), Group()).entries, entry)

    def park_exposed(self, entry: Entry, artifact_key: str) -> None:
        """Until `offer_artifact` says that the artifact's exposure has changed."""
        heapq.heappush(self._by_artifact.setdefault(artifact_key, Group(artifact_key)).entries, entry)

    def taken(self, sequence: int) -> str | None:
        """A job was taken from the queue: if it was offered, the next of its group may be. Returns that artifact."""
        group = self._group_of.pop(sequence, None)
        if group is None:
            return None
        group.offered = None
        return group.artifact_key

    def holds(self, artifact_key: str) -> bool:
        """Jobs wait for the artifact's exposure to change."""
        return artifact_key in self._by_artifact

    def offer_tried(self, fits: Callable[[frozenset[str]], bool], is_waiting: IsWaiting) -> list[Entry]:
        """The first of every group for which there is an idle device, given what its jobs have tried."""
        if not self._by_tried:
            return []
        offers = []
        for tried, group in list(self._by_tried.items()):
            if group.is_empty:
                del self._by_tried[tried]
            elif group.offered is None and fits(tried):
                offers += self._offer(group, is_waiting)
        return offers

    def offer_artifact(self, artifact_key: str, is_waiting: IsWaiting) -> list[Entry]:
        """The first of the jobs that wait for this artifact's exposure to change."""
        group = self._by_artifact.get(artifact_key)
        if group is None:
            return []
        offers = self._offer(group, is_waiting)
        if group.is_empty:
            del self._by_artifact[artifact_key]
        return offers

    def _offer(self, group: Group, is_waiting: IsWaiting) -> list[Entry]:
        entry = group.offer(is_waiting)
        if entry is None:
            return []
        self._group_of[entry[1]] = group
        return [entry]
