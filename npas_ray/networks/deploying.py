"""A trained candidate as what is shipped: the lowered graph and its weights, batch norm folded, filters compacted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from device_farm.compiler.graph import Graph
from device_farm.compiler.sparsity import TapUnit
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.lowering import lower
from npas_ray.networks.module import ConvBn, Network, block_prefix
from npas_ray.networks.operators import Cut, body_layers, layer_choices, pruned_layers
from npas_ray.pruning.schemes import count_taps
from npas_ray.space.choices import Architecture

Weights = dict[str, NDArray[Any]]


@torch.no_grad()
def deploy(
    network: Network,
    backbone: Backbone,
    architecture: Architecture,
    masks: Mapping[str, Tensor],
    *,
    block_height: int,
    tap_unit: TapUnit = TapUnit.TAP,
) -> tuple[Graph, Weights]:
    """The graph of `lower`, the very same, and its weights by name as `device_farm.compiler.graph` asks for them.

    `masks` are those of `network_masks` that the network was trained under; they are applied once more. Batch norm is
    folded with its running statistics in float64 and rounded once, to float32.
    Raises ValueError if the masks keep another number of taps or filters than the architecture says.
    """
    graph = lower(backbone, architecture, block_height=block_height, tap_unit=tap_unit)
    weights: Weights = {}
    _put(weights, "stem", *_folded(network.stem, "stem.", masks))
    choices = layer_choices(backbone, architecture)
    for block, choice in zip(backbone.blocks, choices, strict=False):
        pruned = pruned_layers(choice)
        prefix = block_prefix(block)
        inner: Tensor | None = None  # survivors among the channels that the next sub-layer reads
        for layer in body_layers(block, choice.operator):
            module = network.get_submodule(prefix + layer.name)
            weight, bias = _folded(module, f"{prefix}{layer.name}.", masks)
            if inner is not None and not layer.depthwise:
                weight, inner = weight[:, inner], None
            if pruned and pruned.cut is not Cut.WEIGHTS and layer.name in pruned.layers:
                kept = masks.get(f"{prefix}{layer.name}.bn.weight")
                if kept is not None:
                    weight, bias = weight[kept], bias[kept]
                    if pruned.cut is Cut.EXPANSION:
                        inner = kept
                    else:
                        index = kept.nonzero().flatten()
                        weights[f"{block.name}.scatter.index"] = index.to(torch.int32).numpy()
            _put(weights, f"{block.name}.{layer.name}", weight, bias)
    fc = network.fc.weight.double()
    if "fc.weight" in masks:
        fc = fc * masks["fc.weight"]
    _put(weights, "fc", fc[:, :, None, None], network.fc.bias.double())
    _check(graph, weights)
    return graph, weights


def _folded(module: nn.Module, prefix: str, masks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight [filters, channels, kh, kw] and bias [filters] in float64, masks applied."""
    assert isinstance(module, ConvBn)
    bn = module.bn
    assert bn.running_mean is not None and bn.running_var is not None

    def masked(parameter: str, value: Tensor) -> Tensor:
        mask = masks.get(prefix + parameter)
        return value.double() if mask is None else value.double() * mask

    scale = masked("bn.weight", bn.weight) / (bn.running_var.double() + bn.eps).sqrt()
    weight = masked("conv.weight", module.conv.weight) * scale.view(-1, 1, 1, 1)
    return weight, masked("bn.bias", bn.bias) - bn.running_mean.double() * scale


def _put(weights: Weights, name: str, weight: Tensor, bias: Tensor) -> None:
    weights[f"{name}.weight"] = weight.float().contiguous().numpy()
    weights[f"{name}.bias"] = bias.float().contiguous().numpy()


def _check(graph: Graph, weights: Weights) -> None:
    """The weights are those of the graph. Raises ValueError."""
    for op in graph.ops:
        if op.kind not in ("conv2d", "depthwise_conv2d"):
            continue
        shape = graph.shapes[op.name]
        weight = weights[f"{op.name}.weight"]
        if len(weight) != shape.channels:
            raise ValueError(f"{op.name}: the masks keep {len(weight)} filters, the architecture {shape.channels}")
        sparsity = getattr(op, "sparsity", None)
        if sparsity is not None:
            kept = count_taps(torch.from_numpy(np.asarray(weight)) != 0, sparsity.block_height)
            # Fewer is harmless: a weight that training left at exactly zero is a tap that is stored and does nothing.
            if any(found > asked for found, asked in zip(kept, sparsity.kept, strict=True)):
                raise ValueError(f"{op.name}: the masks keep {kept} taps a block, the architecture {sparsity.kept}")
