"""One-shot magnitude pruning: rank once, cut, and keep cut what was cut while the rest is trained."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from npas_ray.pruning.schemes import Balance, make_mask
from npas_ray.space.choices import Scheme


@dataclass(frozen=True)
class Pruning:
    """How one weight is pruned."""

    scheme: Scheme
    rate: float


def one_shot_masks(
    weights: Mapping[str, Tensor],
    *,
    pruning: Mapping[str, Pruning],
    block_height: int,
    balance: Balance = Balance.BLOCK,
) -> dict[str, Tensor]:
    """A mask for every weight that `pruning` names and does not leave dense.

    Raises ValueError if it names an unknown weight, or if a mask cannot be made; the message names the weight.
    """
    masks = {}
    for name, how in pruning.items():
        _check_known(name, weights)
        if how.scheme is Scheme.DENSE:
            continue
        try:
            masks[name] = make_mask(
                weights[name], scheme=how.scheme, rate=how.rate, block_height=block_height, balance=balance
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return masks


class MaskedParameters:
    """Holds masked weights at zero. Making one zeroes them; after that call `enforce` after every optimiser step.

    A masked gradient alone is not enough: momentum and weight decay move a weight without one. `attach` lets the
    optimiser call `enforce` by itself:

    >>> weight = torch.nn.Parameter(torch.ones(2, 2))
    >>> masked = MaskedParameters({"w": weight}, {"w": torch.eye(2, dtype=torch.bool)})
    >>> handle = masked.attach(torch.optim.SGD([weight], lr=0.1))
    >>> weight.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(
        self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], masks: Mapping[str, Tensor]
    ) -> None:
        """`parameters` may be more than are masked, as `module.named_parameters()` gives them.

        Raises ValueError for a mask without its parameter or of another shape.
        """
        by_name = dict(parameters)
        self._pruned: list[tuple[Tensor, Tensor]] = []  # parameter, what is cut of it
        for name, mask in masks.items():
            _check_known(name, by_name)
            parameter = by_name[name]
            if mask.shape != parameter.shape:
                raise ValueError(f"{name}: mask of shape {tuple(mask.shape)}, weight of shape {tuple(parameter.shape)}")
            self._pruned.append((parameter, ~mask.to(device=parameter.device, dtype=torch.bool)))
        self.enforce()

    @torch.no_grad()
    def enforce(self) -> None:
        """Set every masked weight to zero, NaN included."""
        for parameter, cut in self._pruned:
            parameter.masked_fill_(cut, 0.0)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Set the gradients of masked weights to zero, so that gradient norms and moments see live weights only."""
        for parameter, cut in self._pruned:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(cut, 0.0)

    def attach(self, optimizer: Optimizer) -> tuple[RemovableHandle, RemovableHandle]:
        """Mask gradients before and weights after every step of the optimiser, until the handles are removed."""
        return (
            optimizer.register_step_pre_hook(lambda *_: self.mask_gradients()),
            optimizer.register_step_post_hook(lambda *_: self.enforce()),
        )


def _check_known(name: str, known: Mapping[str, Tensor]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        raise ValueError(f"no weight is called {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
