"""The compiler's version is the content of its own sources, so that nobody forgets to raise it."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from device_farm.runner import sources

_HERE = Path(__file__).parent


def digest(parts: Iterable[bytes | str]) -> str:
    """Of a list of parts; their limits count."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


@cache
def generator_version() -> str:
    """Of what decides a kernel object besides its spec and target."""
    tvm_version = importlib.metadata.version("apache-tvm")
    return digest([tvm_version, *_contents((_HERE / "kernels").glob("*.py"))])


@cache
def compiler_version() -> str:
    """Of all that decides an artifact besides graph, target and weights."""
    own = [*_HERE.glob("*.py"), *(_HERE / "graph").glob("*.py"), *support_files(), *sources.source_files()]
    return digest([generator_version(), zig_version(), *_contents(own)])


def zig_version() -> str:
    return importlib.metadata.version("ziglang")


def support_files() -> list[Path]:
    return sorted((_HERE / "csrc").iterdir())


def _contents(paths: Iterable[Path]) -> list[bytes]:
    return [part for path in sorted(paths) for part in (path.name.encode(), path.read_bytes())]
