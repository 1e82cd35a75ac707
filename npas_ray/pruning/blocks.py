"""Block-punched (CONV), block-based (1x1 CONV, FC) and kernel-block pruning: whole columns of a block of filters.

Both schemes keep, in every block of F consecutive filters, the taps (channel, kh, kw) with the largest L2 norm over
those filters, so on a 1x1 convolution they are one scheme. The channel extent of a block is 1 where the kernel gathers
every tap by its own offset, as finer blocks lose less accuracy then, and the authors' 4 where the target loads four
channels at once and multiplies by each of them: NEON (`Target.tap_unit`).

Kernel blocks take all positions of a channel at once. They lose more accuracy than free taps at the same rate, but a
3x3 convolution that lost whole kernels can still be computed by Winograd's algorithm, which is twice as fast or more.

The paper's block-based pruning may also take rows, single filters of a block. They are left alone here: the filters
of a block are the lanes of a vector, which takes its time whether or not a lane is wanted.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from device_farm.compiler.sparsity import TapUnit, Units
from npas_ray.pruning.counts import block_heights, kept_units
from npas_ray.pruning.units import block_energy, top_units


def block_mask(
    weight: Tensor, *, rate: float, block_height: int, whole_layer: bool = False, unit: TapUnit = TapUnit.TAP
) -> Tensor:
    """Mask of a weight [filters, channels, ...] in which the taps of a block live together.

    Every block keeps max(1, round(units / rate)) units: taps, channels at all positions, or four channels at one. Of
    four, those that are left over where channels are no multiple of it are units of their own, kept at the same rate.
    With `whole_layer` (npas) one ranking runs over all blocks, and max(1, round(blocks * units / rate)) units of the
    layer survive; a block may lose them all.
    """
    heights = block_heights(len(weight), block_height)
    energy = block_energy(weight, block_height)  # blocks x taps
    units = Units(unit, weight.shape[1], energy.shape[1] // weight.shape[1])
    energy = _sums(energy, units)  # blocks x units
    if whole_layer:
        # The mean over the filters orders a full block as the norm does, and is fair to a shorter last one.
        energy = energy / torch.tensor(heights, dtype=energy.dtype, device=energy.device).unsqueeze(1)
    kept = [
        _strongest(part, rate, whole_layer=whole_layer)
        for part in (energy[:, : units.whole], energy[:, units.whole :])
        if part.numel()
    ]
    return spread(_taps(torch.cat(kept, 1), units), weight, block_height)


def _strongest(energy: Tensor, rate: float, *, whole_layer: bool) -> Tensor:
    """bool [blocks, units]"""
    rows = energy.reshape(1, -1) if whole_layer else energy
    return top_units(rows, kept_units(rows.shape[1], rate)).view_as(energy)


def _sums(taps: Tensor, units: Units) -> Tensor:
    """Sums over every unit: [blocks, channels * positions] -> [blocks, units]."""
    sums = taps.view(len(taps), units.channels, -1, units.unit_positions).sum(-1)
    sums = functional.pad(sums, (0, 0, 0, -units.channels % units.unit_channels))
    return sums.view(len(taps), -1, units.unit_channels, sums.shape[-1]).sum(2).flatten(1)


def _taps(kept: Tensor, units: Units) -> Tensor:
    """Every tap gets what its unit has: [blocks, units] -> [blocks, channels * positions]."""
    by_channel = kept.view(len(kept), -1, units.positions // units.unit_positions)
    by_channel = by_channel.repeat_interleave(units.unit_channels, 1)[:, : units.channels]
    return by_channel.repeat_interleave(units.unit_positions, 2).flatten(1)


def spread(taps: Tensor, weight: Tensor, block_height: int) -> Tensor:
    """Every filter gets the taps of its block: bool [blocks, taps] -> mask of the weight's shape."""
    return taps.repeat_interleave(block_height, 0)[: len(weight)].view(weight.shape)
