"""`find`, as far as cleaning up needs it."""

from __future__ import annotations

import fnmatch
import posixpath
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device_farm.emulator.shell.commands.registry import command, say

if TYPE_CHECKING:
    from device_farm.emulator.shell.shell import Shell

_DAY_S = 86_400.0


@dataclass
class _Wanted:
    places: list[str] = field(default_factory=list)
    pattern: str = "*"
    kind: str = ""
    min_depth: int = 0
    max_depth: int = 64
    older_than_days: int | None = None
    deletes: bool = False
    runs: list[str] = field(default_factory=list)
    all_at_once: bool = False


def _parse(words: list[str]) -> _Wanted:
    """Raises ValueError for what is not emulated, rather than to do more than was asked."""
    wanted = _Wanted()
    rest = iter(words[1:])
    for word in rest:
        if word == "-name":
            wanted.pattern = next(rest)
        elif word == "-type":
            wanted.kind = next(rest)
        elif word == "-mindepth":
            wanted.min_depth = int(next(rest))
        elif word == "-maxdepth":
            wanted.max_depth = int(next(rest))
        elif word == "-mtime":
            days = next(rest)
            if not days.startswith("+"):
                raise ValueError(f"-mtime {days} is not emulated, only +DAYS")
            wanted.older_than_days = int(days)
        elif word == "-delete":
            wanted.deletes = True
        elif word == "-exec":
            for part in rest:
                if part in (";", "+"):
                    wanted.all_at_once = part == "+"
                    break
                wanted.runs.append(part)
        elif word.startswith("-") and word != "-print":
            raise ValueError(f"bad option '{word}'")
        elif not word.startswith("-"):
            wanted.places.append(word)
    return wanted


def _walk(shell: Shell, wanted: _Wanted) -> Iterator[str]:
    waiting = [(place, 0) for place in reversed(wanted.places or ["."])]
    while waiting:
        name, depth = waiting.pop()
        status = shell.phone.files.status(shell.path(name))
        is_folder = stat.S_ISDIR(status.mode)
        if is_folder and depth < wanted.max_depth:
            names = shell.phone.files.names(shell.path(name))
            waiting += [(f"{name.rstrip('/')}/{inner}", depth + 1) for inner in reversed(names)]
        old_enough = wanted.older_than_days is None or (
            (time.time() - status.modified_s) // _DAY_S > wanted.older_than_days
        )
        is_kind = wanted.kind in ("", "d" if is_folder else "f")
        is_named = fnmatch.fnmatchcase(posixpath.basename(name), wanted.pattern)
        if depth >= wanted.min_depth and is_kind and old_enough and is_named:
            yield name


@command("find")
async def _find(shell: Shell, words: list[str]) -> int:
    wanted = _parse(words)
    found = list(_walk(shell, wanted))
    if wanted.deletes:
        return await shell.execute(["rm", "-rf", *found], {})
    if not wanted.runs:
        await say(shell, "".join(f"{name}\n" for name in found))
        return 0
    status = 0
    for names in ([found] if found else []) if wanted.all_at_once else [[name] for name in found]:
        arguments = [part for word in wanted.runs for part in (names if word == "{}" else [word])]
        status = await shell.execute(arguments, {}) or status
    return status
