"""How a direct convolution is cut into blocks of filters, and whether its taps go one by one or by four channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.graph import Conv2d
from device_farm.compiler.sparsity import QUAD_CHANNELS
from device_farm.compiler.target import RegisterTile, Target

Mask = NDArray[np.bool_]
QUAD_SLACK = 1.1  # dead taps that are computed so that taps go in quads: at most a tenth of those that live


@dataclass(frozen=True)
class Span:
    """Filters low .. high of a block, which belong to one group of channels, and the taps that any of them uses."""

    group: int
    low: int
    high: int
    alive: Mask  # kh, kw, channels of the group

    @cached_property
    def living(self) -> int:
        """Taps that any of the filters uses."""
        return int(np.count_nonzero(self.alive))

    def units(self, channels: int) -> Mask:
        """[kh, kw, units] which units of so many adjacent channels hold a living tap."""
        if channels == 1:
            return self.alive
        padded: Mask = np.pad(self.alive, ((0, 0), (0, 0), (0, -self.alive.shape[-1] % channels)))
        return np.asarray(padded.reshape(*padded.shape[:2], -1, channels).any(axis=-1))


Block = tuple[Span, ...]


@dataclass(frozen=True)
class BlockGroup:
    """Blocks of one height, one after the other from `first_filter` on."""

    tile: RegisterTile
    first_filter: int
    blocks: tuple[Block, ...]

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Living taps of every block."""
        return tuple(sum(span.living for span in block) for block in self.blocks)

    @property
    def products(self) -> int:
        """Multiply-accumulates a pixel that are wanted."""
        return sum(span.living * (span.high - span.low) for block in self.blocks for span in block)


def cut(op: Conv2d, target: Target, alive: Callable[[int, int], Mask]) -> tuple[BlockGroup, ...]:
    """The blocks of a layer; alive(low, high) are the taps [kh, kw, channels] that any of the filters low .. high uses.

    A layer whose sparsity was made for lower blocks, or whose groups of filters are lower, is computed in the highest
    blocks that divide those, or else in the lowest ones; all others in the target's own, with a last one of one vector
    where that is enough. Blocks cover whole vectors of the output, so that the lanes behind the last filter are
    written too.
    """
    return tuple(
        BlockGroup(
            tile,
            first,
            tuple(
                tuple(Span(group, low, high, alive(low, high)) for group, low, high in spans(op, start, tile.height))
                for start in range(first, first + blocks * tile.height, tile.height)
            ),
        )
        for tile, first, blocks in _cover(op, target)
    )


def _cover(op: Conv2d, target: Target) -> list[tuple[RegisterTile, int, int]]:
    """(tile, first filter, blocks)."""
    heights = [op.filters // op.groups] if op.groups > 1 else []
    if op.sparsity is not None and op.sparsity.block_height < op.filters:
        heights.append(op.sparsity.block_height)
    covered = math.ceil(op.filters / target.simd_lanes) * target.simd_lanes
    fitting = [tile for tile in target.tiles if all(height % tile.height == 0 for height in heights)]
    tile = fitting[0] if fitting else target.tiles[-1]
    if tile != target.tiles[0]:
        return [(tile, 0, covered // tile.height)]
    whole, rest = divmod(covered, tile.height)
    groups = [(tile, 0, whole)] if whole else []
    one_vector = target.small_tiles[0]
    return groups + ([(one_vector, whole * tile.height, rest // one_vector.height)] if rest else [])


def lowest_only(op: Conv2d, target: Target) -> bool:
    """Whether a layer is cut into the target's lowest blocks."""
    return all(tile == target.tiles[-1] for tile, _, _ in _cover(op, target))


def spans(op: Conv2d, start: int, filters: int) -> list[tuple[int, int, int]]:
    """(group of channels, first filter, filter behind the last) for the groups that filters from `start` on belong to.

    None for filters behind the last one.
    """
    size, stop = op.filters // op.groups, min(start + filters, op.filters)
    return [
        (group, max(start, group * size), min(stop, (group + 1) * size))
        for group in range(start // size, (stop - 1) // size + 1)
    ]


def tap_channels(groups: Iterable[BlockGroup], target: Target) -> int:
    """Channels of a tap: four where the target has kernels for that and hardly a tap is computed for nothing."""
    taps = quads = 0
    for group in groups:
        if not target.quad_pixels:
            return 1
        taps += sum(group.kept)
        quads += sum(int(np.count_nonzero(span.units(QUAD_CHANNELS))) for block in group.blocks for span in block)
    return QUAD_CHANNELS if taps and QUAD_CHANNELS * quads <= QUAD_SLACK * taps else 1
