"""What lowering hands to plan.py: kernels to call, where their data lie, and the bands in which a fused block runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from device_farm.compiler.graph import Op
from device_farm.compiler.kernels.spec import KernelSpec
from device_farm.compiler.strides import Layout, TiledPlanes


class Variable(StrEnum):
    """What changes while a fused block runs, in the order in which csrc/interpreter.c numbers them."""

    ROW = "row"  # the first output row of the band
    FIRST = "first"  # where a run of rows begins that are expanded next
    SLOT = "slot"  # their place in the ring
    COUNT = "count"  # how many they are


@dataclass(frozen=True)
class Place:
    """A pointer into arena, parameters or the lines of a fused block, counted in what it points to.

    `moves` adds variables, times a stride each.
    """

    area: str  # "arena", "parameters" or "lines"
    offset: int
    moves: tuple[tuple[Variable, int], ...] = ()


@dataclass(frozen=True)
class Table:
    """A pointer to numbers that the plan itself holds, the first of them or a later one."""

    numbers: tuple[int, ...]
    first: int = 0


Argument = Place | Table | Variable | int | float


@dataclass(frozen=True)
class Call:
    """One call of a kernel; arguments by parameter name. `block_taps`, of a convolution, are those of every block."""

    spec: KernelSpec
    arguments: dict[str, Argument]
    block_taps: tuple[int, ...] = ()

    def replaced(self, **arguments: Argument) -> Call:
        return dataclasses.replace(self, arguments=self.arguments | arguments)


@dataclass(frozen=True)
class View:
    """An activation as a kernel sees it: `start` elements into the arena lies its first pixel, border included."""

    layout: Layout
    start: int

    def at(self, y: int = 0, x: int = 0, channel: int = 0) -> Place:
        return Place("arena", self.start + self.layout.offset(y, x) + channel)


@dataclass(frozen=True)
class TiledView:
    """The same of an activation that is kept as planes."""

    planes: TiledPlanes
    start: int

    def at(self, pixel: int = 0) -> Place:
        """Of the tile that begins at that pixel."""
        return Place("arena", self.start + pixel * self.planes.channels)


@dataclass(frozen=True)
class Chunk:
    """The calls for some of a block's expanded channels, whose ring begins at `ring`."""

    ring: int
    expand: tuple[Call, ...]
    depthwise: Call


@dataclass(frozen=True)
class Bands:
    """A fused block, or the part of one from `first_row` to before `output_rows`, run band by band.

    Every band has `rows` output rows; the last one is shifted back to fit.

    Calls may use variables and `lines`, the offset of every row of the padded image in the ring.
    """

    rows: int
    output_rows: int
    ring: Layout  # of one chunk; its bottom border is the row of zeros that stands for all rows outside the image
    lines: tuple[int, ...]
    reach: int  # rows of the image that output row 0's band needs
    stride: int
    expanded_rows: int  # of the whole image
    chunks: tuple[Chunk, ...]
    project: tuple[Call, ...]
    first_row: int = 0

    @property
    def calls(self) -> tuple[Call, ...]:
        return (*(call for chunk in self.chunks for call in (*chunk.expand, chunk.depthwise)), *self.project)

    @property
    def count(self) -> int:
        return -(-(self.output_rows - self.first_row) // self.rows)

    @property
    def first_expanded(self) -> int:
        """The first row that the first band needs."""
        return max(0, self.first_row * self.stride + self.reach - self.ring.shape.height)


@dataclass(frozen=True)
class Step:
    """What one operator became, or a fused block, whose last operator it then is."""

    op: Op
    calls: tuple[Call, ...]
    macs: int
    kept_macs: int
    fused: tuple[Op, ...] = ()  # the operators before `op` that this step computes too
    bands: Bands | None = None  # if there are, `calls` are those of one band

    @property
    def name(self) -> str:
        return " + ".join(op.name for op in (*self.fused, self.op))

    @property
    def kind(self) -> str:
        return "inverted_residual" if self.bands else self.op.kind
