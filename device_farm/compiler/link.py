"""Kernels, their table and the runner -> one static executable, by the C compiler and linker of the ziglang wheel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.target import Target
from device_farm.compiler.version import digest, support_files, zig_version
from device_farm.errors import CompileError
from device_farm.runner import sources

SUPPORT_DIR = Path(__file__).parent / "csrc"
TIMEOUT_S = 600.0  # the first link of a machine builds musl, which takes about a minute
_INCLUDES = ("-I", str(sources.INCLUDE_DIR), "-I", str(SUPPORT_DIR))


@cache
def zig() -> str:
    """Path of the zig executable. Raises CompileError if its wheel is not installed."""
    spec = importlib.util.find_spec("ziglang")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise CompileError("the linker is missing: pip install ziglang")
    return str(Path(folders[0]) / "zig")


def support_objects(cache: ObjectCache, target: Target) -> list[bytes]:
    """All of a program but its kernels and their table: the runner, the interpreter of plans and prepare.c."""
    return [runner_object(cache, target), *(_compiled(c, cache, target) for c in sorted(SUPPORT_DIR.glob("*.c")))]


def runner_object(cache: ObjectCache, target: Target) -> bytes:
    """The runner alone, for a plan that is written in C."""
    return _compiled(sources.RUNNER_SOURCE, cache, target)


def _compiled(source: Path, cache: ObjectCache, target: Target) -> bytes:
    """Compiled once for each triple and element.

    Without the kernels' -mcpu: a program must start on any core, to report that an instruction is missing.
    """

    def make(path: Path) -> None:
        element = f"-DNPAS_ELEMENT={target.element.c_type}"
        _run([*_compiler(target), *_INCLUDES, element, "-c", str(source), "-o", str(path)], cache.folder)

    return cache.get_or_make(digest([support_version(target), source.name]), make)


@cache
def support_version(target: Target) -> str:
    """Of all that a program holds besides its kernels and their table."""
    files = (*sources.source_files(), *support_files())
    content = (part for path in sorted(files) for part in (path.name, path.read_bytes()))
    return digest([zig_version(), target.triple, target.element.c_type, *sources.CFLAGS, *sources.LDFLAGS, *content])


def link(table: Path, objects: Sequence[Path], *, target: Target, output: Path, cache_dir: Path) -> None:
    """Compiles table.c and links it with the objects. Raises CompileError."""
    command = [*_compiler(target), *_INCLUDES, str(table), *map(str, objects), *sources.LDFLAGS, "-o", str(output)]
    _run(command, cache_dir)


def _compiler(target: Target) -> list[str]:
    return [zig(), "cc", "-target", target.triple, *sources.CFLAGS]


def _run(command: list[str], cache_dir: Path) -> None:
    # zig keeps what it compiles for ever: musl is worth it and stays in zig's global cache, a table.c is not.
    scratch = Path(command[-1]).parent / "zig-local"
    environment = dict(os.environ) | {"ZIG_LOCAL_CACHE_DIR": str(scratch)}
    if "HOME" not in environment and "XDG_CACHE_HOME" not in environment:
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_dir / "zig"))
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"zig cc took longer than {TIMEOUT_S:.0f} s: {' '.join(command[:6])} ...") from error
    if done.returncode != 0:
        raise CompileError(f"zig cc failed ({done.returncode}):\n{done.stderr[-3000:]}")
