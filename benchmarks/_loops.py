"""Hand-written loops of AVX-512 multiply-adds, as assembly text: what a core makes of one way to feed them.

A loop is a C function `void name(const float *x, const float *w, float *y, long rounds)` whose sums end in y.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHAINS = 14  # sums of a loop: they hide the latency of four cycles, and numbers fit beside them
PIXELS, VECTORS, LANES = 7, 2, 16  # the tile of AVX-512: 7 pixels x 32 filters
STRIDE = 4 * VECTORS * LANES  # bytes from a pixel to the next, of x and of y
TILES = 8  # in a round; x and y of all of them lie in the first-level cache
PAGE = 4096

# How a number of x comes to a multiply-add -> (bits of a vector, instruction that repeats it before or None).
BROADCASTS: dict[str, tuple[int, str | None]] = {
    "alone": (512, ""),
    "vbroadcastss": (512, "vbroadcastss"),
    "vbroadcastsd": (512, "vbroadcastsd"),
    "vpbroadcastd": (512, "vpbroadcastd"),
    "vpbroadcastq": (512, "vpbroadcastq"),
    "embedded": (512, None),
    "half vectors alone": (256, ""),
    "half vectors, vbroadcastss": (256, "vbroadcastss"),
    "half vectors, vpbroadcastd": (256, "vpbroadcastd"),
    "half vectors, embedded": (256, None),
}


@dataclass(frozen=True)
class Broadcasts:
    """14 multiply-adds a round, each with a number of its own that `form` brings; nothing is stored meanwhile."""

    form: str

    @property
    def symbol(self) -> str:
        return "broadcast_" + self.form.replace(" ", "_").replace(",", "")

    @property
    def multiply_adds(self) -> int:
        return CHAINS

    @property
    def place(self) -> int:
        """Of y behind x, modulo a page."""
        return 0

    def assembly(self) -> Iterator[str]:
        bits, broadcast = BROADCASTS[self.form]
        letter, lanes = ("z", 16) if bits == 512 else ("y", 8)
        step = 8 if broadcast in ("vbroadcastsd", "vpbroadcastq") else 4
        yield from (f"vpxord %zmm{i}, %zmm{i}, %zmm{i}" for i in range(CHAINS))
        yield f"vmovups (%rsi), %{letter}mm28"
        yield from (f"vbroadcastss {4 * i}(%rdi), %{letter}mm{CHAINS + i}" for i in range(CHAINS))
        yield "1:"
        for i in range(CHAINS):
            if broadcast:
                yield f"{broadcast} {step * i}(%rdi), %{letter}mm{CHAINS + i}"
            number = f"{4 * i}(%rdi){{1to{lanes}}}" if broadcast is None else f"%{letter}mm{CHAINS + i}"
            yield f"vfmadd231ps {number}, %{letter}mm28, %{letter}mm{i}"
        yield from ("dec %rcx", "jnz 1b")
        yield from (f"vmovups %zmm{i}, {64 * i}(%rdx)" for i in range(CHAINS))

    def expected(self, x: NDArray[np.float32], w: NDArray[np.float32], rounds: int) -> NDArray[np.float32]:
        """The sums [14, 16]; half vectors leave the upper half zero."""
        bits, broadcast = BROADCASTS[self.form]
        lanes = np.arange(LANES)
        pairs = broadcast in ("vbroadcastsd", "vpbroadcastq")
        numbers = [x[2 * i + lanes % 2] if pairs else np.full(LANES, x[i]) for i in range(CHAINS)]
        return (rounds * np.array(numbers) * w[:LANES] * (lanes < bits // 32)).astype(np.float32)


@dataclass(frozen=True)
class Taps:
    """Tiles of 7 pixels x 32 filters over `taps` channels, clamped like ReLU6.

    A number is loaded once for both vectors of a pixel, or is an operand in memory of both multiply-adds. `store` is
    where y lies behind x, in bytes modulo 4 KiB; None stores nothing but the last round's tiles.
    """

    taps: int
    from_memory: bool
    store: int | None

    @property
    def symbol(self) -> str:
        how = "memory" if self.from_memory else "once"
        return f"taps_{self.taps}_{how}_{'none' if self.store is None else self.store}"

    @property
    def multiply_adds(self) -> int:
        return TILES * self.taps * PIXELS * VECTORS

    @property
    def place(self) -> int:
        return self.store or 0

    def assembly(self) -> Iterator[str]:
        yield "vpxord %zmm26, %zmm26, %zmm26"
        yield "vbroadcastss six(%rip), %zmm27"
        yield "1:"
        yield from ("mov %rdi, %r8", "mov %rdx, %r9", f"mov ${TILES}, %r10")
        yield "2:"
        yield from self._tile()
        if self.store is not None:
            yield from self._stores()
        yield from (f"add ${PIXELS * STRIDE}, %r8", f"add ${PIXELS * STRIDE}, %r9", "dec %r10", "jnz 2b")
        yield from ("dec %rcx", "jnz 1b")
        if self.store is None:
            yield f"sub ${PIXELS * STRIDE}, %r9"
            yield from self._stores()

    def expected(self, x: NDArray[np.float32], w: NDArray[np.float32], rounds: int) -> NDArray[np.float32]:
        """The last tile [7, 32]."""
        first = (TILES - 1) * PIXELS
        pixels = x.reshape(-1, STRIDE // 4)[first : first + PIXELS, : self.taps]
        sums: NDArray[np.float32] = pixels @ w.reshape(-1, VECTORS * LANES)[: self.taps]
        return sums.clip(0, 6)

    def _tile(self) -> Iterator[str]:
        sums = range(PIXELS * VECTORS)
        yield from (f"vpxord %zmm{i}, %zmm{i}, %zmm{i}" for i in sums)
        for tap in range(self.taps):
            yield from (f"vmovups {tap * STRIDE + 64 * v}(%rsi), %zmm{28 + v}" for v in range(VECTORS))
            for pixel in range(PIXELS):
                number, register = f"{pixel * STRIDE + 4 * tap}(%r8)", 30 + pixel % 2
                if not self.from_memory:
                    yield f"vbroadcastss {number}, %zmm{register}"
                operand = f"{number}{{1to16}}" if self.from_memory else f"%zmm{register}"
                yield from (f"vfmadd231ps {operand}, %zmm{28 + v}, %zmm{VECTORS * pixel + v}" for v in range(VECTORS))
        yield from (f"v{limit}ps %zmm{register}, %zmm{i}, %zmm{i}" for i in sums for limit, register in _CLAMP)

    def _stores(self) -> Iterator[str]:
        for i in range(PIXELS * VECTORS):
            yield f"vmovups %zmm{i}, {i // VECTORS * STRIDE + 64 * (i % VECTORS)}(%r9)"


_CLAMP = (("max", 26), ("min", 27))
Loop = Broadcasts | Taps


def source(loops: list[Loop]) -> str:
    """All loops as one file for the assembler of x86-64."""
    lines = [".section .rodata", ".balign 4", "six: .float 6", ".text"]
    for loop in loops:
        lines += [f".globl {loop.symbol}", ".balign 64", f"{loop.symbol}:", *loop.assembly(), "vzeroupper", "ret"]
    return "\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""])


def table(loops: list[Loop]) -> str:
    """The same loops for C: LOOP(name, place of y behind x)."""
    return "".join(f"LOOP({loop.symbol}, {loop.place})\n" for loop in loops)
