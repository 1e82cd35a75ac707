"""Objects, plan.c and the runner -> one static executable, by the C compiler and linker of the ziglang wheel."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.target import Target
from device_farm.compiler.version import digest, support_files
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
    """The runner and prepare.c, compiled once for each target triple.

    They do not get the kernels' -mcpu: they must start on any core, to report that an instruction is missing.
    """
    files = {path.name: path for path in (*sources.source_files(), *support_files())}
    content = digest([*(part for name, path in sorted(files.items()) for part in (name, path.read_bytes()))])
    objects = []
    for source in (sources.RUNNER_SOURCE, SUPPORT_DIR / "prepare.c"):
        command = [*_compiler(target), *_INCLUDES, "-c", str(source)]
        key = digest([content, source.name, *command[1:4], *sources.CFLAGS])
        objects.append(
            cache.get_or_make(key, lambda path, command=command: _run([*command, "-o", str(path)], cache.folder))  # type: ignore[misc]
        )
    return objects


def link(plan: Path, objects: Sequence[Path], *, target: Target, output: Path, cache_dir: Path) -> None:
    """Compiles plan.c and links it with the objects. Raises CompileError."""
    command = [*_compiler(target), *_INCLUDES, str(plan), *map(str, objects), *sources.LDFLAGS, "-o", str(output)]
    _run(command, cache_dir)


def _compiler(target: Target) -> list[str]:
    return [zig(), "cc", "-target", target.triple, *sources.CFLAGS]


def _run(command: list[str], cache_dir: Path) -> None:
    environment = dict(os.environ)
    if "HOME" not in environment and "XDG_CACHE_HOME" not in environment:
        environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_dir / "zig"))
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"zig cc took longer than {TIMEOUT_S:.0f} s: {' '.join(command[:6])} ...") from error
    if done.returncode != 0:
        raise CompileError(f"zig cc failed ({done.returncode}):\n{done.stderr[-3000:]}")
