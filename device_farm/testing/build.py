"""Builds the C of this folder with zig, for any target triple."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from device_farm.errors import CompileError
from device_farm.runner.sources import CFLAGS, INCLUDE_DIR, LDFLAGS, RUNNER_SOURCE

_HERE = Path(__file__).parent


def build(arguments: Sequence[str | Path], *, triple: str, output: Path) -> Path:
    """Runs zig's C compiler. A fresh machine builds musl first, about a minute. Raises CompileError."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        triple,
        *CFLAGS,
        "-I",
        INCLUDE_DIR,
        "-o",
        output,
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise CompileError(f"zig cannot build {output.name} for {triple}: {done.stderr.strip()[-2000:]}")
    return output


def build_artifact(directory: Path, *, triple: str, defines: Sequence[str] = (), name: str = "artifact") -> Path:
    """The runner around tiny_plan.c, with `-D` for each of `defines`. Raises CompileError."""
    runner = directory / f"runner-{triple}.o"
    if not runner.exists():
        build(["-c", RUNNER_SOURCE], triple=triple, output=runner)
    flags = [f"-D{define}" for define in defines]
    return build([*LDFLAGS, *flags, runner, _HERE / "tiny_plan.c"], triple=triple, output=directory / name)


def build_device_program(directory: Path, *, triple: str) -> Path:
    """device_program.c: what the conformance suite runs on devices. Raises CompileError."""
    return build([*LDFLAGS, _HERE / "device_program.c"], triple=triple, output=directory / "device_program")
