"""Pattern pruning of 3x3 convolutions with connectivity pruning; patterns are shared by a block of filters.

Every kernel keeps 4 of its 9 positions, chosen from a small library (npas, patdnn). In the paper each kernel has its
own pattern; here the F filters of a block share one for each input channel, because a vector across filters cannot
gather a different pixel in each lane. Rates above 9/4 are reached by connectivity pruning: whole channels of the
block are dropped, those whose best pattern holds the least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from npas_ray.pruning.blocks import spread
from npas_ray.pruning.counts import (
    PATTERN_KERNEL,
    PATTERN_POSITIONS,
    block_heights,
    check_pattern_shape,
    kept_pattern_channels,
)
from npas_ray.pruning.units import block_energy, top_units

# The centre and three of its neighbours: four corners of 2x2 and four T shapes, each closed under rotation, so that no
# direction is preferred. Positions count row by row from the top left, 4 is the centre.
PATTERNS: tuple[tuple[int, ...], ...] = (
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (3, 4, 6, 7),
    (4, 5, 7, 8),
    (1, 3, 4, 5),
    (1, 3, 4, 7),
    (1, 4, 5, 7),
    (3, 4, 5, 7),
)


def pattern_mask(
    weight: Tensor,
    *,
    rate: float,
    block_height: int,
    whole_layer: bool = False,
    patterns: tuple[tuple[int, ...], ...] = PATTERNS,
) -> Tensor:
    """Mask of a weight [filters, channels, 3, 3]: 4 positions of every channel that a block keeps.

    Every block keeps max(1, round(channels * 9 / (4 * rate))) channels; with `whole_layer` that count is taken, and
    ranked, over all blocks together. `patterns` is the library: 4 distinct positions of 0..8 each.
    Raises ValueError for another kernel, a rate below 9/4 or an impossible library.
    """
    check_pattern_shape(weight.shape)
    _check_library(patterns)
    heights = block_heights(len(weight), block_height)
    channels = weight.shape[1]
    energy = block_energy(weight, block_height).view(-1, channels, 9)  # blocks x channels x positions
    positions = torch.tensor(patterns, device=weight.device)  # library x 4
    held, chosen = energy[..., positions].sum(-1).max(-1)  # blocks x channels
    if whole_layer:
        held = held / torch.tensor(heights, dtype=held.dtype, device=held.device).unsqueeze(1)
        keep = kept_pattern_channels(held.numel(), rate)
        connected = top_units(held.view(1, -1), keep).view_as(held)
    else:
        connected = top_units(held, kept_pattern_channels(channels, rate))
    shapes = torch.zeros(len(patterns), 9, dtype=torch.bool, device=weight.device).scatter_(1, positions, True)
    taps = shapes[chosen] & connected.unsqueeze(-1)  # blocks x channels x positions
    return spread(taps.flatten(1), weight, block_height)


def _check_library(patterns: tuple[tuple[int, ...], ...]) -> None:
    area = PATTERN_KERNEL[0] * PATTERN_KERNEL[1]
    for pattern in patterns:
        if (
            len(pattern) != PATTERN_POSITIONS
            or len(set(pattern)) != PATTERN_POSITIONS
            or not set(pattern) <= set(range(area))
        ):
            raise ValueError(f"a pattern is {PATTERN_POSITIONS} distinct positions of 0..{area - 1}, got {pattern}")
    if not patterns:
        raise ValueError("the pattern library is empty")
