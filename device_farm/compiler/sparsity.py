"""What a pruned convolution keeps: blocks of filters, taps, and the units in which taps are kept or lost together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUAD_CHANNELS = 4


class TapUnit(StrEnum):
    """Which taps of a block of filters live and die together."""

    TAP = "tap"  # one channel at one position
    KERNEL = "kernel"  # one channel at all positions
    QUAD = "quad"  # four adjacent channels at one position (npas: 8x4 blocks); the last unit may have fewer


@dataclass(frozen=True)
class Units:
    """How the taps of one block are cut into units, for `channels` channels (of a group) and `positions` of a kernel.

    Units are numbered by channels, then by positions, as taps are; those with fewer channels than the others are the
    last ones.
    """

    unit: TapUnit
    channels: int
    positions: int

    @property
    def unit_channels(self) -> int:
        return QUAD_CHANNELS if self.unit is TapUnit.QUAD else 1

    @property
    def unit_positions(self) -> int:
        return self.positions if self.unit is TapUnit.KERNEL else 1

    @property
    def size(self) -> int:
        """Taps of a whole unit."""
        return self.unit_channels * self.unit_positions

    @property
    def partial_size(self) -> int:
        """Taps of a unit that is not whole; 0 if all are."""
        return self.channels % self.unit_channels * self.unit_positions

    @property
    def whole(self) -> int:
        """Number of whole units."""
        return self.channels // self.unit_channels * (self.positions // self.unit_positions)

    @property
    def partial(self) -> int:
        """Number of units that are not whole."""
        return self.positions // self.unit_positions if self.partial_size else 0

    @property
    def count(self) -> int:
        return self.whole + self.partial

    def split(self, kept: int) -> tuple[int, int] | None:
        """(whole, partial) units that `kept` taps are, as near to their shares as can be; None if no units fit."""
        if not self.partial:
            whole, rest = divmod(kept, self.size)
            return (whole, 0) if rest == 0 and 0 <= whole <= self.whole else None
        fitting = [
            ((kept - partial * self.partial_size) // self.size, partial)
            for partial in range(self.partial + 1)
            if (kept - partial * self.partial_size) % self.size == 0
        ]
        fitting = [(whole, partial) for whole, partial in fitting if 0 <= whole <= self.whole]
        share = kept * self.partial / (self.channels * self.positions)
        return min(fitting, key=lambda units: (abs(units[1] - share), units[1]), default=None)

    def sums(self, taps: NDArray[Any]) -> NDArray[Any]:
        """Sums over the taps of every unit: [blocks, channels * positions] -> [blocks, units]."""
        cut = taps.reshape(len(taps), self.channels, -1, self.unit_positions).sum(axis=-1)
        cut = np.pad(cut, ((0, 0), (0, -self.channels % self.unit_channels), (0, 0)))
        total: NDArray[Any] = cut.reshape(len(taps), -1, self.unit_channels, cut.shape[-1]).sum(axis=2)
        return total.reshape(len(taps), -1)

    def spread(self, units: NDArray[Any]) -> NDArray[Any]:
        """Every tap gets the value of its unit: [blocks, units] -> [blocks, channels * positions]."""
        by_channel = units.reshape(len(units), -1, self.positions // self.unit_positions)
        by_channel = by_channel.repeat(self.unit_channels, axis=1)[:, : self.channels]
        taps: NDArray[Any] = by_channel.repeat(self.unit_positions, axis=2)
        return taps.reshape(len(units), -1)


@dataclass(frozen=True)
class BlockSparsity:
    """How many taps survive in every block of `block_height` consecutive filters.

    A tap is one input position (channel, kh, kw) of the block; taps survive in whole units. Which ones survive is
    data, not shape: it comes from the weights (a tap lives if any weight of its block is non-zero), or from a seed
    when only time matters.
    """

    block_height: int
    kept: tuple[int, ...]  # one count of taps a block, ceil(filters / block_height) of them
    unit: TapUnit = TapUnit.TAP

    def why_impossible(self, *, filters: int, channels: int, positions: int) -> str | None:
        """What does not fit a layer of that shape, in words; None if all does."""
        if self.block_height < 1:
            return f"a block has at least one filter, got block_height={self.block_height}"
        blocks, taps = math.ceil(filters / self.block_height), channels * positions
        if len(self.kept) != blocks:
            return f"{len(self.kept)} kept counts, expected {blocks} blocks"
        if min(self.kept, default=0) < 0 or max(self.kept, default=0) > taps:
            return f"kept counts must lie in 0..{taps}"
        units = Units(self.unit, channels, positions)
        odd = next((kept for kept in dict.fromkeys(self.kept) if units.split(kept) is None), None)
        if odd is not None:
            parts = f" and {units.partial_size}" if units.partial else ""
            return f"kept counts must be whole units ({self.unit}, of {units.size}{parts} taps), got {odd}"
        return None
