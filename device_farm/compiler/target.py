"""What the generator must know of a processor."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from device_farm.compiler.element import Element
from device_farm.compiler.sparsity import TapUnit
from device_farm.errors import CompileError


@dataclass(frozen=True)
class RegisterTile:
    """A block of filters in registers: `vectors` vectors of `lanes` numbers, for `pixels` pixels at the most."""

    vectors: int
    lanes: int
    pixels: int

    @property
    def height(self) -> int:
        """Filters of the block."""
        return self.vectors * self.lanes


@dataclass(frozen=True)
class PlanarTile:
    """Eight filters in registers, for `vectors` vectors of `lanes` pixels, and for `singles` pixels as half vectors."""

    vectors: int
    lanes: int
    singles: int

    @property
    def pixels(self) -> int:
        return self.vectors * self.lanes + self.singles

    @property
    def cycles(self) -> float:
        """Of the multiply-adds of a tap."""
        return 8 * self.vectors + self.singles / 2


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
    small_tiles: tuple[RegisterTile, ...]  # for lower blocks, the highest first; the lowest has the narrowest vectors
    near_bytes: int  # first-level data cache
    far_bytes: int  # second-level cache of one core
    tap_unit: TapUnit = TapUnit.TAP  # in which pruning should take taps
    quad_pixels: int = 0  # pixels of a tile whose taps are four channels at one offset; 0: no such kernels
    planar_tiles: tuple[PlanarTile, ...] = ()  # of the lowest blocks, where their input becomes planes
    element: Element = Element.FLOAT32
    registers: int = 32  # vector registers
    prefetches: bool = False  # weights, in software (docs/kernels.md)

    @property
    def block_height(self) -> int:
        return 2 * self.simd_lanes

    @property
    def tiles(self) -> tuple[RegisterTile, ...]:
        """All, the highest first."""
        return (RegisterTile(2, self.simd_lanes, self.tile_pixels), *self.small_tiles)


# Blocks of 16 filters on AVX-512 are one vector: as many multiply-adds a load as two of half the width, and fewer
# instructions; tiles of 14 pixels are up to 8 % faster than of 28. Those of 8 are half a vector, of which Zen 4 does
# two a cycle, or vectors of pixels (planar.py): 49 at once, as maps of 7, 14, 28 and 56 pixels are cut without a rest.
AVX512 = Target(
    "x86_64-avx512",
    "x86_64-linux-musl",
    "x86-64-v4",
    simd_lanes=16,
    tile_pixels=7,
    small_tiles=(RegisterTile(1, 16, 14), RegisterTile(1, 8, 28)),
    planar_tiles=tuple(PlanarTile(vectors, 16, singles) for vectors in (3, 2, 1) for singles in (1, 0)),
    near_bytes=32_768,
    far_bytes=1_048_576,
    prefetches=True,
)
AVX2 = Target(
    "x86_64-avx2",
    "x86_64-linux-musl",
    "x86-64-v3",
    simd_lanes=8,
    tile_pixels=6,
    small_tiles=(RegisterTile(1, 8, 14),),
    registers=16,
    near_bytes=32_768,
    far_bytes=1_048_576,
)
# Caches of the cores that a network runs on: Cortex-A76 has 256 or 512 KiB behind 64, X1 up to 1 MiB, A55 less.
NEON = Target(
    "aarch64-neon",
    "aarch64-linux-musl",
    "cortex-a55",
    simd_lanes=4,
    tile_pixels=11,
    small_tiles=(RegisterTile(1, 4, 20),),
    near_bytes=32_768,
    far_bytes=524_288,
    tap_unit=TapUnit.QUAD,
    quad_pixels=8,
)
# ARMv8.2 with half-precision arithmetic: Cortex-A55, A75 and all later ones. Multiply-adds by a lane take halves from
# the lower 16 registers only, so tiles are smaller: LLVM moves sums about from 12 pixels on.
NEON_FP16 = dataclasses.replace(
    NEON,
    name="aarch64-neon-fp16",
    simd_lanes=8,
    tile_pixels=10,
    small_tiles=(RegisterTile(1, 8, 16),),
    element=Element.FLOAT16,
)

TARGETS = {target.name: target for target in (AVX512, AVX2, NEON, NEON_FP16)}


class Precision(StrEnum):
    """What a device computes with."""

    FP32 = "fp32"
    FP16 = "fp16"


HALF_FEATURES = frozenset({"fphp", "asimdhp"})  # of half-precision arithmetic, as /proc/cpuinfo calls them


def at_precision(target: Target, precision: Precision, features: Collection[str]) -> Target:
    """The target of a device at a precision; `target` is its own at fp32, `features` are those of /proc/cpuinfo.

    Raises CompileError where its processor cannot compute so.
    """
    if precision is Precision.FP32:
        return target
    if target != NEON:
        raise CompileError(f"precision fp16 is for Arm processors, this one is {target.name}: choose precision fp32")
    if missing := HALF_FEATURES.difference(features):
        raise CompileError(
            f"precision fp16 needs half-precision arithmetic (ARMv8.2), and this processor lacks "
            f"{' and '.join(sorted(missing))}: choose precision fp32"
        )
    return NEON_FP16


def host_features() -> frozenset[str]:
    """Words of /proc/cpuinfo, this processor's instructions among them."""
    return frozenset(Path("/proc/cpuinfo").read_text().split())


def host_target(precision: Precision = Precision.FP32) -> Target:
    """The target of this machine. Raises CompileError if there is none for it."""
    return at_precision(_host_target(), precision, host_features())


def host_targets() -> tuple[Target, ...]:
    """Every target whose artifacts run on this machine, its own first. Raises CompileError."""
    host = host_target()
    if host == AVX512:
        return AVX512, AVX2
    return (host, NEON_FP16) if host == NEON and host_features() >= HALF_FEATURES else (host,)


def _host_target() -> Target:
    if platform.machine() in ("aarch64", "arm64"):
        return NEON
    flags = host_features()
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        return AVX512
    if {"avx2", "fma"} <= flags:
        return AVX2
    raise CompileError(
        f"this machine ({platform.machine()}) has neither AVX2 nor NEON; targets are {', '.join(TARGETS)}"
    )
