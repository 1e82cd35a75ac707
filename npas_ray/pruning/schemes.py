"""Schemes as pure functions: a weight in, a mask of its shape out, with exact kept counts (see counts.py)."""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor

from device_farm.compiler.sparsity import TapUnit
from npas_ray.pruning.blocks import block_mask
from npas_ray.pruning.counts import check_dense, kept_taps, kept_units
from npas_ray.pruning.filters import filter_mask, filter_scores, top_filters
from npas_ray.pruning.patterns import PATTERNS, pattern_mask
from npas_ray.pruning.units import ranked, top_units
from npas_ray.space.choices import Scheme

__all__ = ["Balance", "achieved_rate", "count_taps", "kept_taps", "make_mask"]


class Balance(StrEnum):
    """Over what a block scheme ranks its units."""

    BLOCK = "block"  # each block by itself: equal load, latency independent of the weights
    LAYER = "layer"  # all blocks together (npas): the total is exact, the blocks are unevenly loaded


def make_mask(
    weight: Tensor,
    *,
    scheme: Scheme,
    rate: float,
    block_height: int,
    tap_unit: TapUnit = TapUnit.TAP,
    balance: Balance = Balance.BLOCK,
    patterns: tuple[tuple[int, ...], ...] = PATTERNS,
) -> Tensor:
    """True where the weight survives: [filters, channels, kh, kw] or [filters, channels] -> bool of the same shape.

    What survives, exactly, with `taps` = channels * kh * kw:

    ===============  ===================================================================================
    dense            everything; the rate must be 1
    filter           max(1, round(filters / rate)) filters, by L2 norm
    block-punched    max(1, round(taps / rate)) taps of every block, by L2 norm over the block's filters
    block-based      the same: whole columns of a filter block
    kernel-block     max(1, round(channels / rate)) channels of every block, at all positions, ranked likewise
    pattern          4 positions of max(1, round(channels * 9 / (4 * rate))) channels of every block
    unstructured     max(1, round(filters * taps / rate)) weights, by magnitude
    ===============  ===================================================================================

    `block_height` comes from the target (2 x its SIMD lanes); filter and unstructured pruning do not use it.
    `tap_unit` too: with TapUnit.QUAD the taps of block-punched and block-based are four adjacent channels each (npas),
    and of channels that are left over.
    `balance` and `patterns`: see blocks.py and patterns.py. Ties go to the lower index; nothing is random.
    Raises ValueError: rate below 1, pattern on another kernel than 3x3 or below rate 9/4, NaN in the weight.
    """
    if weight.dim() < 2 or not weight.numel():
        raise ValueError(f"a weight is [filters, channels, kh, kw] or [filters, channels], got {tuple(weight.shape)}")
    whole_layer = Balance(balance) is Balance.LAYER
    match scheme:
        case Scheme.DENSE:
            check_dense(rate)
            return torch.ones_like(weight, dtype=torch.bool)
        case Scheme.FILTER:
            return filter_mask(weight, top_filters(filter_scores(weight), kept_units(len(weight), rate)))
        case Scheme.PATTERN:
            return pattern_mask(
                weight, rate=rate, block_height=block_height, whole_layer=whole_layer, patterns=patterns
            )
        case Scheme.BLOCK_PUNCHED | Scheme.BLOCK_BASED:
            return block_mask(weight, rate=rate, block_height=block_height, whole_layer=whole_layer, unit=tap_unit)
        case Scheme.KERNEL_BLOCK:
            return block_mask(
                weight, rate=rate, block_height=block_height, whole_layer=whole_layer, unit=TapUnit.KERNEL
            )
        case Scheme.UNSTRUCTURED:
            return top_units(ranked(weight).abs().view(1, -1), kept_units(weight.numel(), rate)).view(weight.shape)


def achieved_rate(mask: Tensor) -> float:
    """Weights before / weights kept; infinite if nothing is kept."""
    kept = int(mask.count_nonzero())
    return mask.numel() / kept if kept else math.inf


def count_taps(mask: Tensor, block_height: int) -> tuple[int, ...]:
    """Taps of every block of filters that any of its filters uses: what the compiler finds in a masked weight."""
    rows = mask.flatten(1)  # filters x taps
    return tuple(int(rows[start : start + block_height].any(0).sum()) for start in range(0, len(rows), block_height))
