"""What an operator is made of, and what a scheme prunes of it. Two tables, no torch.

Every block computes relu(body(x) + shortcut(x)). The body is the operator's chain of sub-layers, each a convolution
without bias + batch norm, with a ReLU between two of them and none behind the last. The shortcut has no parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from npas_ray.networks.backbone import Backbone, Block
from npas_ray.space.choices import Architecture, LayerChoice, Operator, Scheme


@dataclass(frozen=True)
class SubLayer:
    """One convolution (or the fully connected layer, a 1x1 convolution of one pixel) of an operator."""

    name: str  # within its block
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """torch's layout: filters, channels of one filter, kernel height, kernel width."""
        return (self.out_channels, 1 if self.depthwise else self.in_channels, self.kernel, self.kernel)


def body_layers(block: Block, operator: Operator) -> tuple[SubLayer, ...]:
    """The body of a block in the order of computation; empty for skip. Raises ValueError on the head's operator."""
    i, o, s = block.in_channels, block.out_channels, block.stride
    match operator:
        case Operator.CONV1X1:
            return (SubLayer("conv", i, o, 1, s),)
        case Operator.CONV3X3:
            return (SubLayer("conv", i, o, 3, s),)
        case Operator.DW3X3_CONV1X1:
            return (SubLayer("depthwise", i, i, 3, s, depthwise=True), SubLayer("project", i, o))
        case Operator.CONV1X1_DW3X3_CONV1X1:
            e = i * block.expansion
            return (
                SubLayer("expand", i, e),
                SubLayer("depthwise", e, e, 3, s, depthwise=True),
                SubLayer("project", e, o),
            )
        case Operator.SKIP:
            return ()
    raise ValueError(
        f"{block.name}: {operator!r} is not an operator of a block; those are {', '.join(BLOCK_OPERATORS)}"
    )


BLOCK_OPERATORS = (
    Operator.CONV1X1,
    Operator.CONV3X3,
    Operator.DW3X3_CONV1X1,
    Operator.CONV1X1_DW3X3_CONV1X1,
    Operator.SKIP,
)


def head_layer(backbone: Backbone) -> SubLayer:
    """The fully connected layer behind the global average pooling."""
    channels = backbone.blocks[-1].out_channels if backbone.blocks else backbone.stem_channels
    return SubLayer("fc", channels, backbone.classes)


class Cut(StrEnum):
    """Which unit a scheme takes away."""

    WEIGHTS = "weights"  # by a mask of the weight, the layer keeps its shape
    FILTERS = "filters"  # whole filters: beside them only the shortcut is left in the block's output
    EXPANSION = "expansion"  # whole inner channels: expand filters, depthwise channels, project inputs together


@dataclass(frozen=True)
class PrunedLayers:
    """What a scheme cuts of an operator, and in which of its sub-layers."""

    cut: Cut
    layers: tuple[str, ...]


# Depthwise weights are never masked: they hold few MACs, and their kernel has no taps to gather.
_MASKED: dict[Operator, tuple[str, ...]] = {
    Operator.CONV1X1: ("conv",),
    Operator.CONV3X3: ("conv",),
    Operator.DW3X3_CONV1X1: ("project",),
    Operator.CONV1X1_DW3X3_CONV1X1: ("expand", "project"),
    Operator.FC: ("fc",),
}
_BY_FILTER: dict[Operator, PrunedLayers] = {
    Operator.CONV1X1: PrunedLayers(Cut.FILTERS, ("conv",)),
    Operator.CONV3X3: PrunedLayers(Cut.FILTERS, ("conv",)),
    Operator.DW3X3_CONV1X1: PrunedLayers(Cut.FILTERS, ("project",)),
    Operator.CONV1X1_DW3X3_CONV1X1: PrunedLayers(Cut.EXPANSION, ("expand", "depthwise", "project")),
}


def pruned_layers(choice: LayerChoice) -> PrunedLayers | None:
    """What the choice's scheme cuts; None if nothing. Raises ValueError where the scheme has no meaning.

    >>> pruned_layers(LayerChoice(Operator.DW3X3_CONV1X1, Scheme.BLOCK_BASED, 2.0)).layers
    ('project',)
    """
    if choice.scheme is Scheme.DENSE:
        return None
    if choice.scheme is Scheme.FILTER and choice.operator in _BY_FILTER:
        return _BY_FILTER[choice.operator]
    if choice.scheme is not Scheme.FILTER and choice.operator in _MASKED:
        return PrunedLayers(Cut.WEIGHTS, _MASKED[choice.operator])
    raise ValueError(f"{choice}: {choice.scheme.value} pruning has no meaning for {choice.operator.value}")


def layer_choices(backbone: Backbone, architecture: Architecture) -> tuple[LayerChoice, ...]:
    """The choice of every block and then of the head (dense FC unless it is searchable).

    Raises ValueError if the architecture has another number of layers than the backbone.
    """
    if len(architecture.layers) != backbone.layers:
        raise ValueError(
            f"the architecture has {len(architecture.layers)} layers, backbone {backbone.name!r} {backbone.layers}"
        )
    if backbone.searchable_head:
        return architecture.layers
    return (*architecture.layers, LayerChoice(Operator.FC))


def dense_architecture(backbone: Backbone) -> Architecture:
    """The network that nothing was taken from: 3x3 everywhere."""
    head = (LayerChoice(Operator.FC),) if backbone.searchable_head else ()
    return Architecture((*(LayerChoice(Operator.CONV3X3),) * len(backbone.blocks), *head))
