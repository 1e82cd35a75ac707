"""One-shot magnitude masks of a whole network: what each choice's scheme takes of which parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from device_farm.compiler.sparsity import TapUnit
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.module import Network, block_prefix
from npas_ray.networks.operators import Cut, PrunedLayers, layer_choices, pruned_layers
from npas_ray.pruning.counts import kept_units
from npas_ray.pruning.filters import filter_mask, filter_scores, top_filters
from npas_ray.pruning.schemes import make_mask
from npas_ray.space.choices import Architecture, LayerChoice


@torch.no_grad()
def network_masks(
    network: Network,
    backbone: Backbone,
    architecture: Architecture,
    *,
    block_height: int,
    tap_unit: TapUnit = TapUnit.TAP,
) -> dict[str, Tensor]:
    """Masks by parameter name: bool of the parameter's shape, True where it survives. Dense parameters are left out.

    Magnitudes are those of the weights *after* batch norm is folded into them: batch norm divides by whatever scale
    the raw filters have, so their own norms say nothing of what a filter contributes. Filter pruning masks the batch
    norm's scale and shift too, else a pruned filter would go on as a constant.
    Raises ValueError as `lower` does.
    """
    masks: dict[str, Tensor] = {}
    choices = layer_choices(backbone, architecture)
    for block, choice in zip(backbone.blocks, choices, strict=False):
        pruned = pruned_layers(choice)
        if pruned is not None:
            layers = {name: folded_weight(network, block_prefix(block) + name) for name in pruned.layers}
            for name, mask in _layer_masks(layers, pruned, choice, block_height, tap_unit).items():
                masks[block_prefix(block) + name] = mask
    if pruned_layers(choices[-1]) is not None and backbone.searchable_head:
        head = choices[-1]
        masks["fc.weight"] = make_mask(
            network.fc.weight, scheme=head.scheme, rate=head.rate, block_height=block_height, tap_unit=tap_unit
        )
    return masks


def folded_weight(network: nn.Module, layer: str) -> Tensor:
    """Weight of a ConvBn with its batch norm's scale in it: [filters, channels, kh, kw]."""
    module = network.get_submodule(layer)
    conv, bn = module.conv, module.bn
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d) and bn.running_var is not None
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    return conv.weight * scale.view(-1, 1, 1, 1)


def _layer_masks(
    layers: dict[str, Tensor], pruned: PrunedLayers, choice: LayerChoice, block_height: int, tap_unit: TapUnit
) -> dict[str, Tensor]:
    """Masks by parameter name within the block, for the folded weights of the sub-layers that are cut."""
    if pruned.cut is Cut.WEIGHTS:
        return {
            f"{name}.conv.weight": make_mask(
                weight, scheme=choice.scheme, rate=choice.rate, block_height=block_height, tap_unit=tap_unit
            )
            for name, weight in layers.items()
        }
    if pruned.cut is Cut.FILTERS:
        (name,) = pruned.layers
        weight = layers[name]
        return _filters(name, weight, top_filters(filter_scores(weight), kept_units(len(weight), choice.rate)))
    expand, depthwise, project = pruned.layers
    scores = filter_scores(layers[expand], layers[depthwise], consumers=(layers[project],))
    kept = top_filters(scores, kept_units(len(scores), choice.rate))
    return {
        **_filters(expand, layers[expand], kept),
        **_filters(depthwise, layers[depthwise], kept),
        f"{project}.conv.weight": kept.view(1, -1, 1, 1).expand(layers[project].shape).clone(),
    }


def _filters(name: str, weight: Tensor, kept: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.conv.weight": filter_mask(weight, kept),
        f"{name}.bn.weight": kept.clone(),
        f"{name}.bn.bias": kept.clone(),
    }
