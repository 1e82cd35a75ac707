"""Block masks in units of four channels, as the kernels of NEON want them."""

from __future__ import annotations

import pytest
import torch

from device_farm.compiler.sparsity import TapUnit, Units
from npas_ray.pruning.schemes import Balance, count_taps, kept_taps, make_mask
from npas_ray.space.choices import Scheme


@pytest.mark.parametrize("shape", [(20, 16, 3, 3), (16, 14, 3, 3), (8, 3, 1, 1), (10, 64)])
@pytest.mark.parametrize("rate", [2.0, 5.0])
def test_quads_live_and_die_together(shape: tuple[int, ...], rate: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    scheme = Scheme.BLOCK_PUNCHED if len(shape) == 4 else Scheme.BLOCK_BASED
    mask = make_mask(weight, scheme=scheme, rate=rate, block_height=8, tap_unit=TapUnit.QUAD)
    kept = kept_taps(shape, scheme=scheme, rate=rate, block_height=8, tap_unit=TapUnit.QUAD)
    assert count_taps(mask, 8) == kept
    by_channel = mask.flatten(2) if len(shape) == 4 else mask[..., None]
    for start in range(0, shape[1], 4):
        quad = by_channel[:, start : start + 4]
        assert torch.equal(quad.any(1), quad.all(1))


def test_the_strongest_quads_of_a_layer_survive() -> None:
    weight = torch.ones(16, 8)
    weight[8:] *= 2.0
    mask = make_mask(
        weight, scheme=Scheme.BLOCK_BASED, rate=2, block_height=8, tap_unit=TapUnit.QUAD, balance=Balance.LAYER
    )
    assert count_taps(mask, 8) == (0, 8)
    assert Units(TapUnit.QUAD, 8, 1).count == 2
