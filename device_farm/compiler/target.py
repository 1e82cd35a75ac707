"""What the generator must know of a processor."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from device_farm.compiler.sparsity import TapUnit
from device_farm.errors import CompileError


@dataclass(frozen=True)
class RegisterTile:
    """A block of filters in registers: `vectors` vectors of `lanes` of them, for `pixels` pixels at the most."""

    vectors: int
    lanes: int
    pixels: int

    @property
    def height(self) -> int:
        """Filters of the block."""
        return self.vectors * self.lanes


@dataclass(frozen=True)
class Target:
    """A processor to generate for.

    `simd_lanes` are fp32 lanes of one vector register. A register tile is `tile_pixels` x `block_height` filters;
    `block_height` (2 x lanes) is also the height of the blocks that pruning should use.
    """

    name: str
    triple: str  # LLVM's and zig's
    mcpu: str
    simd_lanes: int
    tile_pixels: int
    small_tiles: tuple[RegisterTile, ...]  # for lower blocks, the highest first; the lowest has the narrowest vectors
    near_bytes: int  # first-level data cache
    far_bytes: int  # second-level cache of one core
    tap_unit: TapUnit = TapUnit.TAP  # in which pruning should take taps
    quad_pixels: int = 0  # pixels of a tile whose taps are four channels at one offset; 0: no such kernels

    @property
    def block_height(self) -> int:
        return 2 * self.simd_lanes

    @property
    def tiles(self) -> tuple[RegisterTile, ...]:
        """All, the highest first."""
        return (RegisterTile(2, self.simd_lanes, self.tile_pixels), *self.small_tiles)


# Blocks of 16 filters on AVX-512 are one vector: as many multiply-adds a load as two of half the width, and fewer
# instructions. Those of 8 are half a vector, of which Zen 4 does two a cycle.
AVX512 = Target(
    "x86_64-avx512",
    "x86_64-linux-musl",
    "x86-64-v4",
    simd_lanes=16,
    tile_pixels=7,
    small_tiles=(RegisterTile(1, 16, 28), RegisterTile(1, 8, 28)),
    near_bytes=32_768,
    far_bytes=1_048_576,
)
AVX2 = Target(
    "x86_64-avx2",
    "x86_64-linux-musl",
    "x86-64-v3",
    simd_lanes=8,
    tile_pixels=6,
    small_tiles=(RegisterTile(1, 8, 14),),
    near_bytes=32_768,
    far_bytes=1_048_576,
)
# Caches of the smaller phones: Cortex-A55 has up to 256 KiB behind 32.
NEON = Target(
    "aarch64-neon",
    "aarch64-linux-musl",
    "cortex-a55",
    simd_lanes=4,
    tile_pixels=12,
    small_tiles=(RegisterTile(1, 4, 24),),
    near_bytes=32_768,
    far_bytes=262_144,
    tap_unit=TapUnit.QUAD,
    quad_pixels=8,
)

TARGETS = {target.name: target for target in (AVX512, AVX2, NEON)}


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
