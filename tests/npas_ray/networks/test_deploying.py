"""What is shipped computes what was trained."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Pool2d,
    ResizeChannels,
    ScatterChannels,
)
from npas_ray.networks.backbone import Backbone, make_backbone
from npas_ray.networks.deploying import deploy
from npas_ray.networks.lowering import lower
from npas_ray.networks.masking import network_masks
from npas_ray.networks.module import Network, build_module
from npas_ray.pruning.one_shot import MaskedParameters
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme

# Odd extents, widths that are no multiple of the block height, widening, narrowing and equal blocks.
BACKBONE = make_backbone(
    "test",
    input_shape=(3, 13, 11),
    stem=(10, 1),
    blocks=((10, 1), (20, 2), (20, 1), (12, 1), (24, 2)),
    classes=7,
    expansion=3,
    searchable_head=True,
)
BLOCK_HEIGHT = 8
BLOCK_CHOICES = (
    *(LayerChoice(op) for op in Operator if op is not Operator.FC),
    *(
        LayerChoice(op, scheme, rate)
        for op in Operator
        if op not in (Operator.FC, Operator.SKIP)
        for scheme in (Scheme.FILTER, Scheme.UNSTRUCTURED)
        for rate in (2.0, 5.0)
    ),
    *(
        LayerChoice(Operator.CONV3X3, scheme, rate)
        for scheme in (Scheme.PATTERN, Scheme.BLOCK_PUNCHED, Scheme.KERNEL_BLOCK)
        for rate in (3.0, 7.0)
    ),
    *(
        LayerChoice(op, Scheme.BLOCK_BASED, rate)
        for op in (Operator.CONV1X1, Operator.DW3X3_CONV1X1, Operator.CONV1X1_DW3X3_CONV1X1)
        for rate in (2.5, 10.0)
    ),
)
HEADS = (LayerChoice(Operator.FC), LayerChoice(Operator.FC, Scheme.BLOCK_BASED, 3.0))


def interpret(graph: Graph, weights: Mapping[str, NDArray[Any]], images: Tensor) -> Tensor:
    """The graph's meaning, operator by operator: images [n, channels, h, w] -> output [n, channels, h', w']."""
    values: dict[str, Tensor] = {}
    for op in graph.ops:
        inputs = [values[name] for name in op.inputs]

        def tensor(kind: str, name: str = op.name) -> Tensor:
            return torch.from_numpy(weights[f"{name}.{kind}"])

        match op:
            case Input():
                out = images
            case Conv2d() | DepthwiseConv2d():
                top, left, bottom, right = op.padding
                x = functional.pad(inputs[0], (left, right, top, bottom))
                groups = x.shape[1] if isinstance(op, DepthwiseConv2d) else 1
                out = functional.conv2d(x, tensor("weight"), tensor("bias"), op.stride, groups=groups)
                if len(inputs) == 2:
                    out = out + inputs[1]
            case Pool2d():
                top, left, bottom, right = op.padding
                out = functional.avg_pool2d(functional.pad(inputs[0], (left, right, top, bottom)), op.kernel, op.stride)
            case Add():
                out = inputs[0] + inputs[1]
            case Activate():
                out = inputs[0]
            case ResizeChannels():
                out = functional.pad(inputs[0], (0, 0, 0, 0, 0, op.channels - inputs[0].shape[1]))
            case ScatterChannels():
                n, _, h, w = inputs[0].shape
                out = torch.zeros(n, op.channels, h, w)
                out[:, tensor("index").long()] = inputs[0]
            case _:
                raise AssertionError(op)
        if getattr(op, "activation", Activation.NONE) is Activation.RELU:
            out = out.relu()
        assert tuple(out.shape[1:]) == (
            graph.shapes[op.name].channels,
            graph.shapes[op.name].height,
            graph.shapes[op.name].width,
        )
        values[op.name] = out
    return values[graph.output.name]


def trained_like(backbone: Backbone, architecture: Architecture, seed: int) -> tuple[Network, dict[str, Tensor]]:
    """A network under masks whose batch norms are not the identity."""
    torch.manual_seed(seed)
    network = build_module(backbone, architecture)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
        network(torch.randn(64, backbone.input_channels, backbone.input_height, backbone.input_width))
    masks = network_masks(network, backbone, architecture, block_height=BLOCK_HEIGHT)
    MaskedParameters(network.named_parameters(), masks)
    return network.eval(), masks


def architectures() -> list[Architecture]:
    """Every choice at every block at least once, mixed at random."""
    rng = random.Random(0)
    columns = [rng.sample(BLOCK_CHOICES, len(BLOCK_CHOICES)) for _ in BACKBONE.blocks]
    heads = itertools.cycle(HEADS)
    return [Architecture((*row, next(heads))) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("architecture", architectures(), ids=lambda a: a.key)
def test_the_deployed_graph_computes_what_the_module_computes(architecture: Architecture) -> None:
    network, masks = trained_like(BACKBONE, architecture, seed=1)
    graph, weights = deploy(network, BACKBONE, architecture, masks, block_height=BLOCK_HEIGHT)
    images = torch.randn(4, 3, 13, 11)
    with torch.no_grad():
        expected = network(images)
        got = interpret(graph, weights, images).flatten(1)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert graph.key == lower(BACKBONE, architecture, block_height=BLOCK_HEIGHT).key


def test_pruned_filters_leave_the_shortcut_alone() -> None:
    choice = LayerChoice(Operator.CONV3X3, Scheme.FILTER, 5.0)
    architecture = Architecture((choice, *(LayerChoice(Operator.SKIP),) * 4, LayerChoice(Operator.FC)))
    network, masks = trained_like(BACKBONE, architecture, seed=2)
    x = torch.rand(2, 10, 13, 11)
    with torch.no_grad():
        out = network.blocks.get_submodule("block0")(x)
    kept = masks["blocks.block0.body.conv.bn.weight"]
    assert int(kept.sum()) == 2
    assert torch.equal(out[:, ~kept], x[:, ~kept])
    assert not torch.equal(out[:, kept], x[:, kept])


def test_masks_of_another_architecture_are_refused() -> None:
    def of(rate: float) -> Architecture:
        return Architecture((*(LayerChoice(Operator.CONV3X3, Scheme.FILTER, rate),) * 5, LayerChoice(Operator.FC)))

    network, masks = trained_like(BACKBONE, of(2.0), seed=3)
    with pytest.raises(ValueError, match=r"block0\.conv: the masks keep 5 filters, the architecture 2"):
        deploy(network, BACKBONE, of(5.0), masks, block_height=BLOCK_HEIGHT)
