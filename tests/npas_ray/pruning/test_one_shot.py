from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

from npas_ray.pruning.one_shot import MaskedParameters, Pruning, one_shot_masks
from npas_ray.pruning.schemes import achieved_rate, make_mask
from npas_ray.space.choices import Scheme


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 4, 10))


def test_masks_are_made_for_what_is_named_and_not_dense() -> None:
    weights = {"a": torch.randn(16, 8, 3, 3), "b": torch.randn(10, 8), "c": torch.randn(4, 4)}
    masks = one_shot_masks(
        weights,
        pruning={"a": Pruning(Scheme.BLOCK_PUNCHED, 3), "b": Pruning(Scheme.DENSE, 1)},
        block_height=8,
    )
    assert list(masks) == ["a"]
    assert achieved_rate(masks["a"]) == 3
    assert torch.equal(masks["a"], make_mask(weights["a"], scheme=Scheme.BLOCK_PUNCHED, rate=3, block_height=8))


def test_errors_name_the_weight() -> None:
    with pytest.raises(ValueError, match=r"no weight is called 'conv1.wight', did you mean 'conv1.weight'\?"):
        one_shot_masks(
            {"conv1.weight": torch.ones(2, 2)}, pruning={"conv1.wight": Pruning(Scheme.FILTER, 2)}, block_height=8
        )
    with pytest.raises(ValueError, match=r"fc: patterns are of 3x3"):
        one_shot_masks({"fc": torch.ones(2, 2)}, pruning={"fc": Pruning(Scheme.PATTERN, 3)}, block_height=8)


OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_masked_weights_stay_zero_while_the_rest_learns(name: str) -> None:
    network = small_network()
    optimizer = OPTIMISERS[name](network.parameters())
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8, 3, 4, 4, generator=generator), torch.arange(8)

    def train() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    for _ in range(3):  # momentum of the time before the pruning must not bring a weight back either
        train()
    parameters = dict(network.named_parameters())
    pruning = {"0.weight": Pruning(Scheme.PATTERN, 3), "3.weight": Pruning(Scheme.BLOCK_BASED, 2)}
    masks = one_shot_masks(parameters, pruning=pruning, block_height=8)
    masked = MaskedParameters(network.named_parameters(), masks)
    handles = masked.attach(optimizer)
    after_pruning = {key: weight.detach().clone() for key, weight in parameters.items()}
    losses = [train() for _ in range(10)]

    assert losses[-1] < losses[0]
    for key, mask in masks.items():
        weight = parameters[key].detach()
        assert not weight[~mask].any()
        assert (weight[mask] != after_pruning[key][mask]).all()

    for handle in handles:
        handle.remove()
    train()
    assert parameters["0.weight"].detach()[~masks["0.weight"]].any(), "without its hooks nothing is held"
    masked.enforce()
    assert not parameters["0.weight"].detach()[~masks["0.weight"]].any()


def test_gradients_are_masked_and_nan_does_not_survive() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    masked = MaskedParameters({"w": weight}, {"w": torch.eye(2, dtype=torch.bool)})
    masked.mask_gradients()  # there is none yet
    weight.grad = torch.ones(2, 2)
    masked.mask_gradients()
    assert weight.grad.tolist() == [[1, 0], [0, 1]]
    weight.data[0, 1] = torch.nan
    masked.enforce()
    assert weight.tolist() == [[1, 0], [0, 1]]


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"w: mask of shape \(3, 2\), weight of shape \(2, 2\)"):
        MaskedParameters({"w": torch.ones(2, 2)}, {"w": torch.ones(3, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="no weight is called 'v'"):
        MaskedParameters({"w": torch.ones(2, 2)}, {"v": torch.ones(2, 2, dtype=torch.bool)})
