"""Whose processor time it was: user and system seconds of all processes below some, by their roles. Linux only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Process:
    parent: int
    command: str
    own_s: float
    children_s: float  # of those that have ended and were waited for


Books = Mapping[tuple[int, str], tuple[float, float]]  # (pid, role) -> seconds of its own, of its dead children


def open_books(roots: Iterable[int], role_of: Callable[[int, str], str]) -> Books:
    """The state of all processes that descend from `roots`, themselves included, by their roles."""
    table = {pid: found for pid in _pids() if (found := _read(pid)) is not None}
    wanted = set(roots)
    grown = True
    while grown:
        more = {pid for pid, process in table.items() if process.parent in wanted} - wanted
        wanted |= more
        grown = bool(more)
    return {
        (pid, role_of(pid, table[pid].command)): (table[pid].own_s, table[pid].children_s)
        for pid in wanted & table.keys()
    }


def spent_s(before: Books, after: Books) -> dict[str, float]:
    """Seconds by role between two states; what a process's dead children used has the role "ROLE's programs"."""
    spent: dict[str, float] = {}
    for (pid, role), (own_s, children_s) in after.items():
        own_before_s, children_before_s = before.get((pid, role), (0.0, 0.0))
        spent[role] = spent.get(role, 0.0) + own_s - own_before_s
        if children_s > children_before_s:
            programs = f"{role}'s programs"
            spent[programs] = spent.get(programs, 0.0) + children_s - children_before_s
    return spent


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _read(pid: int) -> _Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    ticks = [int(field) for field in fields[11:15]]  # utime, stime, cutime, cstime
    return _Process(int(fields[1]), command or name, sum(ticks[:2]) * _TICK_S, sum(ticks[2:]) * _TICK_S)
