"""Block-punched (CONV), block-based (1x1 CONV, FC) and kernel-block pruning: whole columns of a block of filters.

Both schemes keep, in every block of F consecutive filters, the taps (channel, kh, kw) with the largest L2 norm over
those filters, so on a 1x1 convolution they are one scheme. The channel extent of a block is 1, not the authors' 4:
the kernel gathers every tap by its own offset, so finer blocks cost nothing and lose less accuracy.

Kernel blocks take all positions of a channel at once. They lose more accuracy than free taps at the same rate, but a
3x3 convolution that lost whole kernels can still be computed by Winograd's algorithm, which is twice as fast or more.

The paper's block-based pruning may also take rows, single filters of a block. They are left alone here: the filters
of a block are the lanes of a vector, which takes its time whether or not a lane is wanted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from npas_ray.pruning.counts import block_heights, kept_units
from npas_ray.pruning.units import block_energy, top_units


def block_mask(
    weight: Tensor, *, rate: float, block_height: int, whole_layer: bool = False, whole_kernels: bool = False
) -> Tensor:
    """Mask of a weight [filters, channels, ...] in which the taps of a block live together.

    Every block keeps max(1, round(units / rate)) units, which are taps or, with `whole_kernels`, channels at all
    positions. With `whole_layer` (npas) one ranking runs over all blocks, and
    max(1, round(blocks * units / rate)) units of the layer survive; a block may lose them all.
    """
    heights = block_heights(len(weight), block_height)
    energy = block_energy(weight, block_height)  # blocks x taps
    positions = energy.shape[1] // weight.shape[1] if whole_kernels else 1
    energy = energy.view(len(energy), -1, positions).sum(-1)  # blocks x units
    if whole_layer:
        # The mean over the filters orders a full block as the norm does, and is fair to a shorter last one.
        energy = energy / torch.tensor(heights, dtype=energy.dtype, device=energy.device).unsqueeze(1)
        units = top_units(energy.view(1, -1), kept_units(energy.numel(), rate)).view_as(energy)
    else:
        units = top_units(energy, kept_units(energy.shape[1], rate))
    return spread(units.repeat_interleave(positions, 1), weight, block_height)


def spread(taps: Tensor, weight: Tensor, block_height: int) -> Tensor:
    """Every filter gets the taps of its block: bool [blocks, taps] -> mask of the weight's shape."""
    return taps.repeat_interleave(block_height, 0)[: len(weight)].view(weight.shape)
