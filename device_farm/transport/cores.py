"""One core for the local device (or one for each of its threads), all others for everything else.

A measurement is worth little on a core that trains networks meanwhile. So the process that starts everything (the
driver) gives one core up, all children started later inherit that, and only the runner pins itself to it. The thread
next door on the same physical core disturbs too (they share its units): it is given up as well where enough is left.

Two searches on one machine take different cores: each locks its own (core_locks.py), and the later one keeps off the
earlier one's altogether. The earlier one's trainers still run on what the later one measures on, where only
docs/measurement.md's quiet windows help.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from device_farm.transport.core_locks import lock_folder, try_lock

_MIN_OTHERS = 2  # what searching and training keep, before a second thread of the reserved core is given up


@dataclass(frozen=True)
class CorePlan:
    """Who runs where. `reserved` is None where there is only one core: then measurements share it."""

    allowed: frozenset[int]
    reserved: int | None
    others: frozenset[int]
    siblings_idle: bool  # whether the other threads of the reserved cores are kept free, too
    measuring: tuple[int, ...] = ()  # all reserved cores, the first one `reserved`
    locks: tuple[int, ...] = ()  # descriptors that hold them

    def describe(self) -> str:
        """One line for people."""
        if self.reserved is None:
            return "no core is reserved for the local device: there is only one, and measurements share it"
        note = "" if self.siblings_idle else " (its hyperthread sibling stays in use)"
        several = len(self.measuring) > 1
        what = f"cores {', '.join(map(str, self.measuring))} are" if several else f"core {self.reserved} is"
        return f"{what} reserved for the local device{note}"


def plan_cores(
    allowed: Collection[int],
    siblings: Mapping[int, frozenset[int]] | None = None,
    *,
    count: int = 1,
    taken: Collection[int] = (),
) -> CorePlan:
    """Reserves the last `count` allowed cores, at most all but one.

    `siblings` gives the hardware threads of each core's physical core. Cores that somebody else measures on (`taken`)
    are left alone as long as there is another for each thread and one to work on.
    The last ones, as interrupts and most other people's pinning begin at the first.
    """
    if len(allowed) < 2:
        return CorePlan(frozenset(allowed), reserved=None, others=frozenset(allowed), siblings_idle=True)
    free = frozenset(allowed) - frozenset(taken)
    usable = free if len(free) > count else frozenset(allowed)
    measuring = tuple(sorted(usable, reverse=True)[: min(count, len(usable) - 1)])
    others = usable - set(measuring)
    beside = frozenset().union(*((siblings or {}).get(core, frozenset()) for core in measuring)) & others
    idle = len(others - beside) >= _MIN_OTHERS
    kept = others - beside if idle else others
    return CorePlan(frozenset(allowed), measuring[0], kept, siblings_idle=idle or not beside, measuring=measuring)


def reserve(count: int = 1) -> CorePlan:
    """Plans for this machine and moves all threads of this process off the reserved cores.

    Call it once, in the driver, before children are started; a child that calls it gives up one more core.
    """
    allowed = os.sched_getaffinity(0)
    locks = {core: try_lock(core, lock_folder()) for core in allowed}
    plan = plan_cores(allowed, _siblings(), count=count, taken=[core for core, lock in locks.items() if lock is None])
    kept = tuple(lock for core, lock in locks.items() if lock is not None and core in plan.measuring)
    for lock in locks.values():
        if lock is not None and lock not in kept:
            os.close(lock)
    if plan.reserved is not None:
        _move(plan.others)
    return replace(plan, locks=kept)


def release(plan: CorePlan) -> None:
    """Lets all threads of this process use every core again that it could use before, and others measure on it."""
    if plan.reserved is not None:
        _move(plan.allowed)
    for lock in plan.locks:
        os.close(lock)


def parse_cpu_list(text: str) -> frozenset[int]:
    """Reads the kernel's lists: "0-2,5" is {0, 1, 2, 5}. Raises ValueError."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def _siblings() -> dict[int, frozenset[int]]:
    found: dict[int, frozenset[int]] = {}
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
        try:
            found[int(path.parts[-3].removeprefix("cpu"))] = parse_cpu_list(path.read_text())
        except (OSError, ValueError):
            continue  # a core that is just going offline
    return found


def _move(cores: frozenset[int]) -> None:
    # An affinity belongs to a thread, and a child inherits that of the thread that starts it: hence all of them.
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue
