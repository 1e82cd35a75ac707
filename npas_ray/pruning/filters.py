"""Filter pruning: whole filters go, and with them the channels that others would have read from them.

The channels inside an inverted residual are pruned as one: the filters of the 1x1 that expands, the depthwise
channels, and the input channels of the 1x1 that projects. Their score combines all three weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from npas_ray.pruning.units import ranked, top_units


def filter_scores(*weights: Tensor, consumers: Sequence[Tensor] = ()) -> Tensor:
    """Importance of each channel: the product of its L2 norms in all weights that it runs through -> [channels].

    `weights` make the channels ([channels, ...], a depthwise weight among them), `consumers` read them
    ([filters, channels, ...]). With one weight this is the L2 norm of its filters. A signal passes through a channel's
    weights one after the other, so their norms multiply: no weight dominates by its scale, and moving scale from one
    to the next, which ReLU lets through, changes no score.
    Raises ValueError if the weights disagree about the number of channels.
    """
    norms = [ranked(weight).flatten(1).norm(dim=1) for weight in weights]
    norms += [ranked(weight).transpose(0, 1).flatten(1).norm(dim=1) for weight in consumers]
    if not norms:
        raise ValueError("no weight was given to score filters by")
    if len({len(norm) for norm in norms}) != 1:
        raise ValueError(f"the weights disagree about the channels: {', '.join(str(len(norm)) for norm in norms)}")
    return torch.stack(norms).prod(0)


def top_filters(scores: Tensor, keep: int) -> Tensor:
    """True at the `keep` best of scores [channels]; the lower index wins a tie. Raises ValueError."""
    return top_units(scores.unsqueeze(0), keep).squeeze(0)


def filter_mask(weight: Tensor, kept: Tensor) -> Tensor:
    """Mask of a weight [filters, ...] that keeps whole filters: kept is bool [filters]."""
    return kept.view(-1, *(1,) * (weight.dim() - 1)).expand(weight.shape).clone()
