"""How much each scheme keeps: pure arithmetic on shapes, so that latency is known before any weight exists. No torch.

Every count is `max(1, round(units / rate))`, Python's round (halves to even). A unit is what a scheme takes or leaves
whole. Blocks are *balanced*: each block of a layer keeps the same number of taps. The authors' code (npas) takes one
percentile over the layer instead and loads its blocks unevenly; then the latency would depend on the weights' values,
could not be measured beside the training, and a candidate would be slower or faster after every fine-tuning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from device_farm.compiler.sparsity import TapUnit, Units
from npas_ray.space.choices import Scheme

PATTERN_KERNEL = (3, 3)
PATTERN_POSITIONS = 4  # that a pattern keeps of a 3x3 kernel
PATTERN_MIN_RATE = 9 / PATTERN_POSITIONS  # every channel kept: there is no gentler pattern pruning


def kept_units(units: int, rate: float) -> int:
    """How many of `units` equal units survive at a rate: the nearest count, at least one. Raises ValueError."""
    if not (math.isfinite(rate) and rate >= 1):
        raise ValueError(f"a rate is weights before / weights kept, a number >= 1; got {rate!r}")
    return max(1, round(units / rate))


def kept_pattern_channels(channels: int, rate: float) -> int:
    """How many input channels of a block survive connectivity pruning; each keeps 4 of 9 positions.

    Raises ValueError for rates that patterns cannot have.
    """
    if not (math.isfinite(rate) and rate >= PATTERN_MIN_RATE):
        raise ValueError(f"a pattern keeps 4 of 9 positions: its rate is {PATTERN_MIN_RATE:g} or more, got {rate:g}")
    return max(1, round(channels * 9 / (PATTERN_POSITIONS * rate)))


def block_heights(filters: int, block_height: int) -> tuple[int, ...]:
    """Filters of every block; the last block may be shorter. Raises ValueError.

    >>> block_heights(20, 8)
    (8, 8, 4)
    """
    if filters < 1 or block_height < 1:
        raise ValueError(f"filters and block_height are at least 1, got {filters} and {block_height}")
    return tuple(min(block_height, filters - start) for start in range(0, filters, block_height))


def kept_taps(
    weight_shape: Sequence[int], *, scheme: Scheme, rate: float, block_height: int, tap_unit: TapUnit = TapUnit.TAP
) -> tuple[int, ...]:
    """Taps that every block of `block_height` consecutive filters keeps: the `kept` of the compiler's BlockSparsity.

    `weight_shape` is [filters, channels, kh, kw] or, of a fully connected layer, [filters, channels]. It equals
    `count_taps(make_mask(...))` for every weight. After filter pruning the blocks are those of the surviving filters
    moved together, which the compiler sees as a smaller dense layer. Unstructured sparsity has no such counts, as
    which taps of a block are empty depends on the values: it raises ValueError, and runs as a dense layer.
    """
    filters, *rest = weight_shape
    taps = math.prod(rest)
    match scheme:
        case Scheme.DENSE:
            check_dense(rate)
            kept = taps
        case Scheme.FILTER:
            filters, kept = kept_units(filters, rate), taps
        case Scheme.PATTERN:
            check_pattern_shape(weight_shape)
            kept = PATTERN_POSITIONS * kept_pattern_channels(weight_shape[1], rate)
        case Scheme.BLOCK_PUNCHED | Scheme.BLOCK_BASED:
            kept = _kept_in_units(weight_shape, rate, tap_unit)
        case Scheme.KERNEL_BLOCK:
            kept = _kept_in_units(weight_shape, rate, TapUnit.KERNEL)
        case Scheme.UNSTRUCTURED:
            raise ValueError("which taps unstructured pruning leaves depends on the weights: compile the layer dense")
    return (kept,) * len(block_heights(filters, block_height))


def _kept_in_units(weight_shape: Sequence[int], rate: float, tap_unit: TapUnit) -> int:
    """Taps of the units that a block keeps; partial units are kept at the same rate."""
    units = Units(tap_unit, weight_shape[1], math.prod(weight_shape[2:]))
    sizes = ((units.whole, units.size), (units.partial, units.partial_size))
    return sum(kept_units(count, rate) * size for count, size in sizes if count)


def check_dense(rate: float) -> None:
    """Raises ValueError unless the rate is 1."""
    if rate != 1:
        raise ValueError(f"dense keeps every weight: its rate is 1, got {rate:g}")


def check_pattern_shape(weight_shape: Sequence[int]) -> None:
    """Raises ValueError unless the weight is of 3x3 kernels."""
    if tuple(weight_shape[2:]) != PATTERN_KERNEL:
        raise ValueError(f"patterns are of 3x3 kernels, got a weight of shape {tuple(weight_shape)}")
