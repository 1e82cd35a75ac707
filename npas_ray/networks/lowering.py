"""A candidate as the compiler sees it: shapes and sparsity, from the architecture alone. No torch, no weights."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from device_farm.compiler.graph import (
    Activation,
    Add,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Op,
    Padding,
    Pool2d,
    ResizeChannels,
    ScatterChannels,
    Shape,
)
from device_farm.compiler.sparsity import TapUnit
from npas_ray.networks.backbone import Backbone, Block
from npas_ray.networks.operators import (
    Cut,
    SubLayer,
    body_layers,
    head_layer,
    layer_choices,
    pruned_layers,
)
from npas_ray.pruning.counts import kept_taps, kept_units
from npas_ray.space.choices import Architecture, LayerChoice, Scheme


class Blocks(NamedTuple):
    """What of a target the masks follow."""

    height: int
    unit: TapUnit


def lower(
    backbone: Backbone, architecture: Architecture, *, block_height: int, tap_unit: TapUnit = TapUnit.TAP
) -> Graph:
    """The graph that is compiled and timed: batch norm folded, residual and activation fused, pruning as shape.

    Masked layers keep their shape and say how many taps each block of `block_height` filters keeps. Filter pruning
    makes layers narrower: at a block's end a ScatterChannels puts the survivors beside the shortcut, inside an
    inverted residual nothing is left to do. Unstructured pruning runs dense: it has no taps to leave out.
    Raises ValueError where the architecture does not fit the backbone or a scheme has no meaning for an operator.
    """
    choices = layer_choices(backbone, architecture)
    last = Shape(backbone.input_height, backbone.input_width, backbone.input_channels)
    ops: list[Op] = [Input("input", (), last)]
    stem = SubLayer("stem", backbone.input_channels, backbone.stem_channels, 3, backbone.stem_stride)
    ops.append(_conv("stem", stem, ("input",), Activation.RELU))
    for block, choice in zip(backbone.blocks, choices, strict=False):
        ops += _block(block, choice, ops[-1].name, Blocks(block_height, tap_unit))
    shape = Graph(tuple(ops)).shapes[ops[-1].name]
    window = (shape.height, shape.width)
    ops.append(Pool2d("pool", (ops[-1].name,), kernel=window, stride=window))
    head = head_layer(backbone)
    ops.append(
        _conv("fc", head, ("pool",), Activation.NONE, _sparsity(head, choices[-1], Blocks(block_height, tap_unit)))
    )
    return Graph(tuple(ops))


def _block(block: Block, choice: LayerChoice, source: str, blocks: Blocks) -> list[Op]:
    """relu(body + shortcut). Every block's input is >= 0, so behind a shortcut alone the ReLU is left out."""
    pruned = pruned_layers(choice)
    ops = _shortcut(block, source)
    layers = body_layers(block, choice.operator)
    if not layers:
        return ops
    shortcut = ops[-1].name if ops else source
    cut = pruned.cut if pruned else None
    if pruned and cut is Cut.EXPANSION:
        layers = _narrow_inside(layers, kept_units(layers[0].out_channels, choice.rate))
    last = source
    for layer in layers[:-1]:
        name = f"{block.name}.{layer.name}"
        sparsity = _sparsity(layer, choice, blocks)
        ops.append(_conv(name, layer, (last,), Activation.RELU, sparsity))
        last = name
    name = f"{block.name}.{layers[-1].name}"
    if cut is not Cut.FILTERS:
        sparsity = _sparsity(layers[-1], choice, blocks)
        return [*ops, _conv(name, layers[-1], (last, shortcut), Activation.RELU, sparsity)]
    narrow = replace(layers[-1], out_channels=kept_units(block.out_channels, choice.rate))
    scatter, add = f"{block.name}.scatter", f"{block.name}.add"
    return [
        *ops,
        _conv(name, narrow, (last,), Activation.NONE),
        ScatterChannels(scatter, (name,), block.out_channels),
        Add(add, (scatter, shortcut), Activation.RELU),
    ]


def _shortcut(block: Block, source: str) -> list[Op]:
    """The parameter-free way around a block; nothing where the shape stays."""
    ops: list[Op] = []
    if block.stride > 1:
        window = (block.stride, block.stride)
        fill = Padding(bottom=-block.height % block.stride, right=-block.width % block.stride)
        ops.append(Pool2d(f"{block.name}.pool", (source,), kernel=window, stride=window, padding=fill))
        source = ops[-1].name
    if block.in_channels != block.out_channels:
        ops.append(ResizeChannels(f"{block.name}.resize", (source,), block.out_channels))
    return ops


def _narrow_inside(layers: tuple[SubLayer, ...], inner: int) -> tuple[SubLayer, ...]:
    """An inverted residual with `inner` expanded channels."""
    expand, depthwise, project = layers
    return (
        replace(expand, out_channels=inner),
        replace(depthwise, in_channels=inner, out_channels=inner),
        replace(project, in_channels=inner),
    )


def _sparsity(layer: SubLayer, choice: LayerChoice, blocks: Blocks) -> BlockSparsity | None:
    """What a mask leaves of a layer; None where it is dense for the compiler."""
    pruned = pruned_layers(choice)
    if pruned is None or pruned.cut is not Cut.WEIGHTS or layer.name not in pruned.layers:
        return None
    if choice.scheme is Scheme.UNSTRUCTURED:
        return None
    kept = kept_taps(
        layer.weight_shape, scheme=choice.scheme, rate=choice.rate, block_height=blocks.height, tap_unit=blocks.unit
    )
    units = {Scheme.BLOCK_PUNCHED: blocks.unit, Scheme.BLOCK_BASED: blocks.unit, Scheme.KERNEL_BLOCK: TapUnit.KERNEL}
    return BlockSparsity(blocks.height, kept, units.get(choice.scheme, TapUnit.TAP))


def _conv(
    name: str,
    layer: SubLayer,
    inputs: tuple[str, ...],
    activation: Activation,
    sparsity: BlockSparsity | None = None,
) -> Conv2d | DepthwiseConv2d:
    kernel, stride, padding = (layer.kernel,) * 2, (layer.stride,) * 2, Padding.same(layer.kernel)
    if layer.depthwise:
        return DepthwiseConv2d(name, inputs, kernel, stride, padding, activation=activation)
    return Conv2d(name, inputs, layer.out_channels, kernel, stride, padding, activation=activation, sparsity=sparsity)
