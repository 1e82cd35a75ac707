from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from npas_ray.pruning.blocks import block_mask
from npas_ray.pruning.counts import block_heights, kept_pattern_channels, kept_taps, kept_units
from npas_ray.pruning.patterns import PATTERNS
from npas_ray.pruning.schemes import Balance, achieved_rate, count_taps, make_mask
from npas_ray.space.choices import RATES, Scheme

PRUNED_RATES = tuple(rate for rate in RATES if rate > 1)
BLOCK_SCHEMES = (Scheme.BLOCK_PUNCHED, Scheme.BLOCK_BASED, Scheme.KERNEL_BLOCK, Scheme.PATTERN)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Scheme, float, int]:
    """A weight, and a way to prune it that exists."""
    scheme = draw(st.sampled_from(list(Scheme)))
    kernel = 3 if scheme is Scheme.PATTERN else draw(st.sampled_from([0, 1, 3, 5]))  # 0: a matrix
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 20)), *(kernel, kernel) * (kernel > 0))
    rates = [1.0] if scheme is Scheme.DENSE else [r for r in PRUNED_RATES if scheme is not Scheme.PATTERN or r > 2.25]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weight = torch.randn(shape, generator=generator)
    if draw(st.booleans()):
        weight = weight.round()  # many ties, and zeros
    return weight, scheme, draw(st.sampled_from(rates)), draw(st.sampled_from([1, 3, 8, 16, 32]))


def expected_weights(shape: tuple[int, ...], scheme: Scheme, rate: float, height: int) -> int:
    """The documented count of surviving weights, written down once more and by hand."""
    filters, channels = shape[:2]
    taps = math.prod(shape[1:])
    match scheme:
        case Scheme.DENSE:
            return filters * taps
        case Scheme.FILTER:
            return max(1, round(filters / rate)) * taps
        case Scheme.PATTERN:
            return filters * 4 * max(1, round(channels * 9 / (4 * rate)))
        case Scheme.BLOCK_PUNCHED | Scheme.BLOCK_BASED:
            return filters * max(1, round(taps / rate))
        case Scheme.KERNEL_BLOCK:
            return filters * taps // channels * max(1, round(channels / rate))
    return max(1, round(filters * taps / rate))


@settings(max_examples=300)
@given(cases())
@example((torch.ones(1, 1, 1, 1), Scheme.BLOCK_BASED, 10.0, 32))
@example((torch.ones(1, 1, 3, 3), Scheme.PATTERN, 10.0, 32))
@example((torch.zeros(17, 1, 3, 3), Scheme.BLOCK_PUNCHED, 10.0, 8))
@example((torch.ones(1, 3), Scheme.UNSTRUCTURED, 10.0, 8))
def test_kept_counts_are_exact(case: tuple[Tensor, Scheme, float, int]) -> None:
    weight, scheme, rate, height = case
    before = weight.clone()
    mask = make_mask(weight, scheme=scheme, rate=rate, block_height=height)

    assert mask.dtype is torch.bool and mask.shape == weight.shape
    assert torch.equal(weight, before)
    expected = expected_weights(tuple(weight.shape), scheme, rate, height)
    assert int(mask.sum()) == expected
    assert achieved_rate(mask) == weight.numel() / expected
    assert torch.equal(mask, make_mask(weight, scheme=scheme, rate=rate, block_height=height))

    if scheme is Scheme.UNSTRUCTURED:
        with pytest.raises(ValueError, match="depends on the weights"):
            kept_taps(weight.shape, scheme=scheme, rate=rate, block_height=height)
        return
    counts = kept_taps(weight.shape, scheme=scheme, rate=rate, block_height=height)
    survivors = mask.flatten(1).any(1)
    compact = mask[survivors] if scheme is Scheme.FILTER else mask
    assert counts == count_taps(compact, height)
    assert len(set(counts)) == 1, "blocks are loaded equally"


@settings(max_examples=200)
@given(cases().filter(lambda case: case[1] in BLOCK_SCHEMES))
def test_filters_of_a_block_live_on_the_same_taps(case: tuple[Tensor, Scheme, float, int]) -> None:
    weight, scheme, rate, height = case
    for balance in Balance:
        rows = make_mask(weight, scheme=scheme, rate=rate, block_height=height, balance=balance).flatten(1)
        for start in range(0, len(rows), height):
            block = rows[start : start + height]
            assert (block == block[0]).all()


@settings(max_examples=200)
@given(cases().filter(lambda case: case[1] in BLOCK_SCHEMES))
def test_layer_balance_keeps_an_exact_total_and_the_best_units(case: tuple[Tensor, Scheme, float, int]) -> None:
    weight, scheme, rate, height = case
    mask = make_mask(weight, scheme=scheme, rate=rate, block_height=height, balance=Balance.LAYER)
    blocks, taps = len(block_heights(len(weight), height)), weight[0].numel()
    if scheme is Scheme.PATTERN:
        expected = 4 * kept_pattern_channels(blocks * weight.shape[1], rate)
    elif scheme is Scheme.KERNEL_BLOCK:
        expected = taps // weight.shape[1] * kept_units(blocks * weight.shape[1], rate)
    else:
        expected = kept_units(blocks * taps, rate)
    assert sum(count_taps(mask, height)) == expected


@settings(max_examples=200)
@given(cases().filter(lambda case: case[1] in (Scheme.BLOCK_PUNCHED, Scheme.UNSTRUCTURED, Scheme.FILTER)))
def test_nothing_pruned_scores_above_anything_kept(case: tuple[Tensor, Scheme, float, int]) -> None:
    weight, scheme, rate, height = case
    mask = make_mask(weight, scheme=scheme, rate=rate, block_height=height)
    rows, kept = weight.flatten(1), mask.flatten(1)
    if scheme is Scheme.UNSTRUCTURED:
        rows, kept = rows.reshape(1, -1), kept.reshape(1, -1)
        height = 1
    elif scheme is Scheme.FILTER:
        rows, kept, height = rows.norm(dim=1).unsqueeze(0), kept.any(1).unsqueeze(0), 1
    for start in range(0, len(rows), height):
        norms, alive = rows[start : start + height].norm(dim=0), kept[start]
        if not alive.all():
            assert norms[~alive].max() <= norms[alive].min() + 1e-5


@settings(max_examples=100)
@given(cases().filter(lambda case: case[1] is Scheme.PATTERN))
def test_every_kernel_has_a_library_pattern_or_nothing(case: tuple[Tensor, Scheme, float, int]) -> None:
    weight, scheme, rate, height = case
    mask = make_mask(weight, scheme=scheme, rate=rate, block_height=height)
    kernels = {tuple(kernel.nonzero().flatten().tolist()) for kernel in mask.reshape(-1, 9)}
    assert kernels <= {(), *PATTERNS}


@settings(max_examples=100)
@given(cases().filter(lambda case: case[1] is Scheme.KERNEL_BLOCK))
def test_kernel_blocks_keep_the_strongest_kernels_whole(case: tuple[Tensor, Scheme, float, int]) -> None:
    weight, scheme, rate, height = case
    mask = make_mask(weight, scheme=scheme, rate=rate, block_height=height)
    kernels, kept = weight.reshape(*weight.shape[:2], -1), mask.reshape(*weight.shape[:2], -1)
    assert torch.equal(kept.any(2), kept.all(2))
    for start in range(0, len(weight), height):
        norms = kernels[start : start + height].norm(dim=(0, 2))
        alive = kept[start, :, 0]
        if not alive.all():
            assert norms[~alive].max() <= norms[alive].min() + 1e-5


def test_the_library_is_closed_under_rotation_and_holds_the_centre() -> None:
    turned = {tuple(sorted(2 - p // 3 + 3 * (p % 3) for p in pattern)) for pattern in PATTERNS}
    assert turned == set(PATTERNS)
    assert len(turned) == 8 and all(4 in pattern and sorted(pattern) == list(pattern) for pattern in PATTERNS)


def test_patterns_follow_the_weights() -> None:
    weight = torch.full((8, 3, 3, 3), 0.01)
    weight[:, 0].view(8, 9)[:, [4, 5, 7, 8]] = 1.0
    weight[:, 1].view(8, 9)[:, [1, 3, 4, 7]] = 2.0
    mask = make_mask(weight, scheme=Scheme.PATTERN, rate=3, block_height=8)  # 3 * 9 / 12 = 2.25: two channels
    assert mask[0, 0].flatten().nonzero().flatten().tolist() == [4, 5, 7, 8]
    assert mask[7, 1].flatten().nonzero().flatten().tolist() == [1, 3, 4, 7]
    assert not mask[:, 2].any()


def test_block_scores_are_norms_over_the_filters_of_the_block() -> None:
    # Tap 0 has the largest single weight, tap 1 the largest norm over four filters.
    weight = torch.tensor([[3.0, 2.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])
    assert make_mask(weight, scheme=Scheme.BLOCK_BASED, rate=2, block_height=4)[0].tolist() == [False, True]
    assert make_mask(weight, scheme=Scheme.BLOCK_BASED, rate=2, block_height=1)[0].tolist() == [True, False]


def test_layer_balance_may_empty_a_weak_block_and_block_balance_never() -> None:
    weight = torch.ones(8, 4)
    weight[:4] = 0.1
    layer = make_mask(weight, scheme=Scheme.BLOCK_BASED, rate=2, block_height=4, balance=Balance.LAYER)
    assert count_taps(layer, 4) == (0, 4)
    assert count_taps(make_mask(weight, scheme=Scheme.BLOCK_BASED, rate=2, block_height=4), 4) == (2, 2)


def test_layer_balance_does_not_starve_a_short_last_block() -> None:
    weight = torch.ones(9, 4)  # blocks of 8 and 1
    weight[8] = 1.1
    assert count_taps(block_mask(weight, rate=2, block_height=8, whole_layer=True), 8) == (0, 4)


def test_ties_go_to_the_lower_index() -> None:
    ones = torch.ones(4, 2, 3, 3)
    for scheme, rate in ((Scheme.FILTER, 2), (Scheme.BLOCK_PUNCHED, 2), (Scheme.UNSTRUCTURED, 5), (Scheme.PATTERN, 5)):
        flat = make_mask(ones, scheme=scheme, rate=rate, block_height=4)
        first = flat.flatten(1)[0] if scheme in BLOCK_SCHEMES else flat.flatten()
        if scheme is Scheme.PATTERN:
            assert first.nonzero().flatten().tolist() == [0, 1, 3, 4]
        else:
            assert first.nonzero().flatten().tolist() == list(range(int(first.sum())))


def test_a_one_by_one_kernel_makes_the_block_schemes_one() -> None:
    weight = torch.randn(20, 30, 1, 1, generator=torch.Generator().manual_seed(0))
    punched, based, kernels = (
        make_mask(weight, scheme=scheme, rate=3, block_height=8)
        for scheme in (Scheme.BLOCK_PUNCHED, Scheme.BLOCK_BASED, Scheme.KERNEL_BLOCK)
    )
    assert torch.equal(punched, based) and torch.equal(kernels, based)


def test_half_precision_is_ranked_where_its_squares_vanish() -> None:
    weight = torch.zeros(2, 4, dtype=torch.float16)
    weight[:, 3] = 1e-5  # squared: zero in float16
    assert make_mask(weight, scheme=Scheme.BLOCK_BASED, rate=4, block_height=2)[0].tolist() == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("weight", "scheme", "rate", "message"),
    [
        (torch.ones(4, 4), Scheme.FILTER, 0.5, "number >= 1; got 0.5"),
        (torch.ones(4, 4), Scheme.FILTER, math.nan, "number >= 1; got nan"),
        (torch.ones(4, 4), Scheme.DENSE, 2, "rate is 1, got 2"),
        (torch.ones(4, 4, 1, 1), Scheme.PATTERN, 3, r"3x3 kernels, got a weight of shape \(4, 4, 1, 1\)"),
        (torch.ones(4, 4, 3, 3), Scheme.PATTERN, 2, "2.25 or more, got 2"),
        (torch.full((4, 4), math.nan), Scheme.UNSTRUCTURED, 2, "NaN"),
        (torch.ones(4), Scheme.FILTER, 2, r"got \(4,\)"),
        (torch.ones(0, 4), Scheme.FILTER, 2, r"got \(0, 4\)"),
    ],
)
def test_what_cannot_be_pruned_is_refused(weight: Tensor, scheme: Scheme, rate: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_mask(weight, scheme=scheme, rate=rate, block_height=8)


@pytest.mark.parametrize("patterns", [(), ((0, 1, 2),), ((0, 1, 2, 2),), ((0, 1, 2, 9),)])
def test_an_impossible_pattern_library_is_refused(patterns: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        make_mask(torch.ones(4, 4, 3, 3), scheme=Scheme.PATTERN, rate=3, block_height=8, patterns=patterns)


def test_an_empty_mask_has_an_infinite_rate() -> None:
    assert achieved_rate(torch.zeros(2, 2, dtype=torch.bool)) == math.inf


def test_a_block_height_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 4 and 0"):
        make_mask(torch.ones(4, 4), scheme=Scheme.BLOCK_BASED, rate=2, block_height=0)
