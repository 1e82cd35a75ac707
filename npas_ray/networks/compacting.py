"""Trains what filter pruning left of inverted residuals, not what it took: the same mathematics, less work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from npas_ray.networks.backbone import Backbone
from npas_ray.networks.module import BlockModule, ConvBn, Network, block_prefix
from npas_ray.networks.operators import Cut, body_layers, layer_choices, pruned_layers
from npas_ray.space.choices import Architecture


class Compacted:
    """Inverted residuals without their pruned inner channels, from the making of this until `restore`.

    `free` names the masks that need no enforcing meanwhile: what they cut does not exist.
    """

    def __init__(
        self, network: Network, backbone: Backbone, architecture: Architecture, masks: Mapping[str, Tensor]
    ) -> None:
        self.free: set[str] = set()
        self._bodies: list[tuple[BlockModule, nn.Sequential, Tensor]] = []  # block, its full body, kept channels
        choices = layer_choices(backbone, architecture)
        for block, choice in zip(backbone.blocks, choices, strict=False):
            pruned = pruned_layers(choice)
            if pruned is None or pruned.cut is not Cut.EXPANSION:
                continue
            prefix = block_prefix(block)
            expand, depthwise, project = body_layers(block, choice.operator)
            kept = masks[f"{prefix}{expand.name}.bn.weight"]
            inner = int(kept.sum())
            module = cast(BlockModule, network.blocks.get_submodule(block.name))
            full = module.body
            self._bodies.append((module, full, kept))
            self.free |= {name for name in masks if name.startswith(prefix)}
            small = nn.Sequential()
            for layer in (
                replace(expand, out_channels=inner),
                replace(depthwise, in_channels=inner, out_channels=inner),
                replace(project, in_channels=inner),
            ):
                small.add_module(layer.name, ConvBn(layer, relu=layer.name != project.name))
            small.train(full.training)
            module.body = small
            _copy(full, small, kept, back=False)

    def restore(self) -> None:
        """Puts the full layers back, with the trained values where they were kept and zeros elsewhere."""
        for module, full, kept in self._bodies:
            _copy(full, module.body, kept, back=True)
            full.train(module.training)
            module.body = full
        self._bodies.clear()


@torch.no_grad()
def _copy(full: nn.Sequential, small: nn.Sequential, kept: Tensor, *, back: bool) -> None:
    """Weights and statistics of the kept channels from full to small, or back."""
    small_state = small.state_dict()  # shares its tensors with the module
    for name, whole in full.state_dict().items():
        part = small_state[name]
        if whole.shape == part.shape:
            source, goal = (part, whole) if back else (whole, part)
            goal.copy_(source)
            continue
        where = (slice(None), kept) if name.startswith("project.conv") else (kept,)
        if back:
            if "running" not in name:
                whole.zero_()
            whole[where] = part
        else:
            part.copy_(whole[where])
