"""Where activations lie: zero borders, padded channels, and one arena that buffers share by their lifetimes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from device_farm.compiler import winograd
from device_farm.compiler.blocking import lowest_only
from device_farm.compiler.chaining import kept_planes
from device_farm.compiler.fusing import FusedBlock, scratch_floats
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, Op, Padding
from device_farm.compiler.planar import PlanarImage
from device_farm.compiler.strides import ALIGNMENT, Layout, TiledPlanes, pad_channels, spread
from device_farm.compiler.target import Target
from device_farm.compiler.winograd import LivingBlock, Winograd

SHARING_THRESHOLD = 262_144  # elements: below this every buffer has its own place, and no border is written twice


@dataclass(frozen=True)
class Memory:
    """The static memory plan: layout and place in the arena (in elements) of every operator's output."""

    layouts: Mapping[str, Layout]
    offsets: Mapping[str, int]
    elements: int  # of the arena, scratch memories included
    shared: bool  # whether places are used by several buffers, so that borders must be written in every run
    blocks: tuple[FusedBlock, ...] = ()  # whose inner outputs have no place in the arena
    scratch: int = 0  # where the scratch memory begins, which the operators use one after the other
    scratch_floats: int = 0  # of one thread; each has its own, one behind the other
    winograd: Mapping[str, Winograd] = field(default_factory=dict)  # the layers that are computed so
    planar: Mapping[str, PlanarImage] = field(default_factory=dict)  # the layers whose input becomes planes
    tiled: Mapping[str, TiledPlanes] = field(default_factory=dict)  # the outputs that are kept as planes


@dataclass(frozen=True)
class TapPlaces:
    """Elements from a window's first pixel: to each position of the kernel, row by row, and from channel to channel."""

    positions: tuple[int, ...]
    channel: int


def plan_memory(
    graph: Graph,
    target: Target,
    blocks: Sequence[FusedBlock] = (),
    living: Mapping[str, tuple[LivingBlock, ...]] | None = None,
    *,
    threads: int = 1,
) -> Memory:
    """`living` (living.py) says what is left of the layers that Winograd may compute; without, none of them is."""
    layouts = {op.name: _layout(graph, op, target) for op in graph.ops}
    inner = {op.name for block in blocks for op in block.inner}
    fused = inner | {block.project.name for block in blocks}
    ways = {
        op.name: way
        for op in graph.ops
        if isinstance(op, Conv2d) and living is not None
        if (way := winograd.choose(op, layouts[op.inputs[0]], target, living.get(op.name, ()))) is not None
    }
    low = {
        op.name: op
        for op in graph.ops
        if isinstance(op, Conv2d) and op.name not in ways and op.name not in fused
        if target.planar_tiles and lowest_only(op, target)
    }
    planes, tiled = kept_planes(graph, layouts, low, target)
    sizes = {
        name: _aligned((tiled.get(name) or layout).elements) for name, layout in layouts.items() if name not in inner
    }
    scratch = max(
        max((image.elements for image in planes.values()), default=0),
        max((way.workspace for way in ways.values()), default=0),
        max((scratch_floats(graph, b, layouts[b.depthwise.name].pixel_stride) for b in blocks), default=0),
    )
    if threads > 1:
        scratch += ALIGNMENT  # the last vectors of a stem's phases stick out, and behind them is another thread's
    scratch = _aligned(scratch)
    total = sum(sizes.values())
    if total <= SHARING_THRESHOLD:
        offsets, end = {}, 0
        for name, size in sizes.items():
            offsets[name], end = end, end + size
    else:
        offsets, end = _share(graph, sizes, blocks)
    return Memory(
        layouts,
        offsets,
        elements=end + threads * scratch,
        shared=total > SHARING_THRESHOLD,
        blocks=tuple(blocks),
        scratch=end,
        scratch_floats=scratch,
        winograd=ways,
        planar=planes,
        tiled=tiled,
    )


def tap_places(op: Conv2d, memory: Memory) -> TapPlaces:
    """Where the taps of a direct convolution lie in what its kernel reads."""
    image = memory.planar.get(op.name)
    if op.inputs[0] in memory.tiled:
        return TapPlaces((0,), 1)
    if image is not None:
        return TapPlaces(image.positions, image.plane)
    layout, (kh, kw), (dy, dx) = memory.layouts[op.inputs[0]], op.kernel, op.dilation
    positions = (y * dy * layout.row_stride + x * dx * layout.pixel_stride for y in range(kh) for x in range(kw))
    return TapPlaces(tuple(positions), 1)


def _layout(graph: Graph, op: Op, target: Target) -> Layout:
    shape = graph.shapes[op.name]
    top = left = bottom = right = 0
    scalar_reads_only = op is graph.input and op is not graph.output
    for consumer in graph.ops:
        if op.name not in consumer.inputs:
            continue
        if not isinstance(consumer, Conv2d) or consumer.inputs[0] != op.name or consumer.inputs.count(op.name) > 1:
            scalar_reads_only = False
        if isinstance(consumer, Conv2d | DepthwiseConv2d) and consumer.inputs[0] == op.name:
            out, padding = graph.shapes[consumer.name], consumer.padding
            (kh, kw), (sy, sx), (dy, dx) = consumer.kernel, consumer.stride, consumer.dilation
            top, left = max(top, padding.top), max(left, padding.left)
            bottom = max(bottom, (out.height - 1) * sy + (kh - 1) * dy + 1 - padding.top - shape.height)
            right = max(right, (out.width - 1) * sx + (kw - 1) * dx + 1 - padding.left - shape.width)
            if isinstance(consumer, Conv2d) and winograd.is_stem(consumer, shape.channels):
                bottom, right = (
                    max(end, 2 * (extent + 3) - before - size)
                    for end, extent, before, size in (
                        (bottom, out.height, padding.top, shape.height),
                        (right, out.width, padding.left, shape.width),
                    )
                )
    stride = spread(shape.channels) if scalar_reads_only else pad_channels(shape.channels, target)
    return Layout(shape, Padding(top, left, bottom, right), stride)


def _aligned(elements: int) -> int:
    return math.ceil(elements / ALIGNMENT) * ALIGNMENT


def _share(graph: Graph, sizes: Mapping[str, int], blocks: Sequence[FusedBlock]) -> tuple[dict[str, int], int]:
    """Offsets such that buffers that live at the same time do not overlap: big ones first, each at its lowest place.

    The input lives for ever, because it is set once and run many times.
    """
    birth = {op.name: step for step, op in enumerate(graph.ops)}
    death = dict(birth)
    for step, op in enumerate(graph.ops):
        death.update(dict.fromkeys(op.inputs, step))
    for block in blocks:  # what the first of them reads is read until the last of them is done
        death[block.expand.inputs[0]] = max(death[block.expand.inputs[0]], birth[block.project.name])
    death[graph.input.name] = death[graph.output.name] = len(graph.ops)
    offsets: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], birth[name])):
        busy = sorted(
            (offsets[other], offsets[other] + sizes[other])
            for other in offsets
            if birth[other] <= death[name] and birth[name] <= death[other]
        )
        place = 0
        for start, end in busy:
            if place + sizes[name] <= start:
                break
            place = max(place, end)
        offsets[name] = place
    return offsets, max(offsets[name] + sizes[name] for name in offsets)
