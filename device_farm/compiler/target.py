"""What the generator must know of a processor."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from device_farm.compiler.element import Element
from device_farm.errors import CompileError


@dataclass(frozen=True)
class Target:
    """A processor to generate for.

    `simd_lanes` are elements of one vector register. A register tile is `tile_pixels` x `block_height` filters;
    `block_height` (2 x lanes) is also the height of the blocks that pruning should use.
    """

    name: str
    triple: str  # LLVM's and zig's
    mcpu: str
    simd_lanes: int
    tile_pixels: int
    element: Element = Element.FLOAT32
    registers: int = 32  # vector registers

    @property
    def block_height(self) -> int:
        return 2 * self.simd_lanes


AVX512 = Target("x86_64-avx512", "x86_64-linux-musl", "x86-64-v4", simd_lanes=16, tile_pixels=7)
AVX2 = Target("x86_64-avx2", "x86_64-linux-musl", "x86-64-v3", simd_lanes=8, tile_pixels=6, registers=16)
NEON = Target("aarch64-neon", "aarch64-linux-musl", "cortex-a55", simd_lanes=4, tile_pixels=12)
# ARMv8.2 with half-precision arithmetic: Cortex-A55, A75 and all later ones
NEON_FP16 = Target(
    "aarch64-neon-fp16", "aarch64-linux-musl", "cortex-a55", simd_lanes=8, tile_pixels=12, element=Element.FLOAT16
)

TARGETS = {target.name: target for target in (AVX512, AVX2, NEON, NEON_FP16)}


def host_target() -> Target:
    """The target of this machine. Raises CompileError if there is none for it."""
    if platform.machine() in ("aarch64", "arm64"):
        return NEON
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        return AVX512
    if {"avx2", "fma"} <= flags:
        return AVX2
    raise CompileError(
        f"this machine ({platform.machine()}) has neither AVX2 nor NEON; targets are {', '.join(TARGETS)}"
    )
