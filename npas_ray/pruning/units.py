"""Choosing the best units of every row: exact counts, ties to the lower index, linear time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def top_units(scores: Tensor, keep: int) -> Tensor:
    """True at the `keep` highest scores of every row: scores [rows, units] -> bool [rows, units].

    Of equal scores the one with the lower index wins, so a mask is a function of the weights alone.
    Raises ValueError for NaN or infinite scores, and unless 1 <= keep <= units.
    """
    units = scores.shape[1]
    if not 1 <= keep <= units:
        raise ValueError(f"cannot keep {keep} of {units} units")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("the weight holds NaN, or values too large to rank: nothing can be pruned by magnitude")
    if keep == units:
        return torch.ones_like(scores, dtype=torch.bool)
    # A selection, not a sort: the last score that survives, and then as many of its equals as there is room for.
    last = scores.kthvalue(units - keep + 1, dim=1, keepdim=True).values  # rows x 1
    above = scores > last
    equal = scores == last
    room = keep - above.sum(1, keepdim=True)
    return above | (equal & (equal.cumsum(1) <= room))


def ranked(weight: Tensor) -> Tensor:
    """The weight in a precision whose squares can be ranked: float16 squares vanish below 2e-4."""
    weight = weight.detach()
    return weight if weight.dtype is torch.float64 else weight.float()


def block_energy(weight: Tensor, block_height: int) -> Tensor:
    """Squared L2 norm of every tap over the filters of its block: [filters, ...] -> [blocks, taps].

    A tap is one input position (channel, kh, kw). Its weights in a block live and die together: they share one gather
    of the kernel. Block-punched pruning scores a unit by the L2 norm over the filters (npas).
    """
    squares = ranked(weight).flatten(1).square()  # filters x taps
    filters, taps = squares.shape
    padded = functional.pad(squares, (0, 0, 0, -filters % block_height))
    return padded.view(-1, block_height, taps).sum(1)
