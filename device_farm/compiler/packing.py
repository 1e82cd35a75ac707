"""Weights and taps in the order in which the kernels read them, and their places among an artifact's parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler import winograd
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, ScatterChannels
from device_farm.compiler.layout import ALIGNMENT, Layout, Memory, pad_channels
from device_farm.compiler.target import Target
from device_farm.compiler.weights import Array, seeded_taps, weight_shape


@dataclass(frozen=True)
class Group:
    """Blocks of one height within a convolution; `kept` taps in each."""

    vectors: int  # SIMD vectors of filters a block
    height: int  # filters a block
    first_filter: int
    kept: tuple[int, ...]
    weights: int  # places among the parameters, in words
    taps: int
    pointers: int


@dataclass(frozen=True)
class PackedConv:
    groups: tuple[Group, ...]
    bias: int
    products: int | None = (
        None  # multiply-accumulates a pixel, where blocks also hold zeros of other groups of channels
    )

    def kept_macs(self, filters: int, pixels: int) -> int:
        """Multiply-accumulates of the blocks that are really there, padding of the last one left out."""
        if self.products is not None:
            return pixels * self.products
        return pixels * sum(
            kept * min(group.height, filters - group.first_filter - block * group.height)
            for group in self.groups
            for block, kept in enumerate(group.kept)
        )


@dataclass(frozen=True)
class PackedWinograd:
    """By Winograd. Groups keep channels instead of taps; weights are [planes, channels of all blocks, height]."""

    way: winograd.Winograd
    groups: tuple[Group, ...]
    bias: int

    def kept_macs(self, filters: int, pixels: int) -> int:
        """Multiply-accumulates that the direct convolution would do with the taps that are left."""
        heights = [
            (group.first_filter + i * group.height, group.height)
            for group in self.groups
            for i in range(len(group.kept))
        ]
        return pixels * sum(
            block.taps * min(height, filters - first)
            for block, (first, height) in zip(self.way.living, heights, strict=True)
        )


@dataclass(frozen=True)
class PackedDepthwise:
    weights: int
    bias: int


@dataclass(frozen=True)
class PackedScatter:
    index: int


class Parameters:
    """All parameters of an artifact: one array of 4-byte words with a place for each of its parts.

    Without values it only hands out places, and the device fills them from a seed.
    """

    def __init__(self) -> None:
        self.words = 0
        self._parts: list[tuple[int, Array]] = []

    def reserve(self, words: int) -> int:
        place = self.words
        self.words += max(math.ceil(words / ALIGNMENT), 1) * ALIGNMENT
        return place

    def put(self, array: Array) -> int:
        """Place of a float32 or int32 array."""
        place = self.reserve(array.size)
        self._parts.append((place, array))
        return place

    def to_bytes(self) -> bytes:
        blob = np.zeros(self.words, np.uint32)
        for place, array in self._parts:
            blob[place : place + array.size] = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        return blob.tobytes()


Packed = Mapping[str, PackedConv | PackedWinograd | PackedDepthwise | PackedScatter]


def pack(
    graph: Graph, memory: Memory, *, target: Target, weights: Mapping[str, Array] | None, seed: int
) -> tuple[Packed, Parameters]:
    """Packs the given weights, or, without them, plans the places that the device fills from the seed."""
    parameters = Parameters()
    packed: dict[str, PackedConv | PackedWinograd | PackedDepthwise | PackedScatter] = {}
    for op in graph.ops:
        if isinstance(op, Conv2d):
            layout = memory.layouts[op.inputs[0]]
            way = memory.winograd.get(op.name)
            if way is not None:
                packed[op.name] = _pack_winograd(op, way, target, parameters, weights)
            elif weights is None:
                packed[op.name] = _plan_conv(graph, op, target, parameters, seed)
            else:
                packed[op.name] = _pack_conv(
                    op, layout, target, parameters, weights[f"{op.name}.weight"], weights[f"{op.name}.bias"]
                )
        elif isinstance(op, DepthwiseConv2d):
            channels, _, kh, kw = weight_shape(graph, op)
            width = pad_channels(channels, target)
            if weights is None:
                packed[op.name] = PackedDepthwise(parameters.reserve(kh * kw * width), parameters.reserve(width))
            else:
                by_position = weights[f"{op.name}.weight"].reshape(channels, kh * kw).T
                packed[op.name] = PackedDepthwise(
                    parameters.put(np.pad(by_position, ((0, 0), (0, width - channels)))),
                    parameters.put(np.pad(weights[f"{op.name}.bias"], (0, width - channels))),
                )
        elif isinstance(op, ScatterChannels):
            index = None if weights is None else weights[f"{op.name}.index"]
            channels = graph.input_shapes(op)[0].channels
            packed[op.name] = PackedScatter(parameters.reserve(channels) if index is None else parameters.put(index))
    return packed, parameters


def block_groups(op: Conv2d, target: Target) -> list[tuple[int, int, int]]:
    """(vectors, first filter, blocks): blocks of two vectors, a last one of one vector where that is enough.

    A layer whose sparsity was made for blocks of one vector (or less) is computed in such blocks, and so is one whose
    groups of filters do not fill larger ones.
    """
    lanes, filters = target.simd_lanes, op.filters
    small_groups = op.groups > 1 and (filters // op.groups) % (2 * lanes) != 0
    if small_groups or (op.sparsity is not None and op.sparsity.block_height <= lanes):
        return [(1, 0, math.ceil(filters / lanes))]
    whole, rest = divmod(filters, 2 * lanes)
    whole += rest > lanes
    groups = [(2, 0, whole)] if whole else []
    return groups + ([(1, whole * 2 * lanes, 1)] if 0 < rest <= lanes else [])


def group_spans(op: Conv2d, start: int, stop: int) -> list[tuple[int, int, int]]:
    """(group of channels, first filter, filter behind the last) for the groups that filters start .. stop belong to."""
    size, stop = op.filters // op.groups, min(stop, op.filters)
    return [
        (group, max(start, group * size), min(stop, (group + 1) * size))
        for group in range(start // size, (stop - 1) // size + 1)
    ]


def tap_offsets(op: Conv2d, layout: Layout, channels: int) -> NDArray[np.int32]:
    """[kh, kw, channels] offset in floats of every tap from the window's first pixel."""
    (kh, kw), (dy, dx) = op.kernel, op.dilation
    rows, columns = np.arange(kh) * dy * layout.row_stride, np.arange(kw) * dx * layout.pixel_stride
    return (rows[:, None, None] + columns[None, :, None] + np.arange(channels)).astype(np.int32)


def _pack_conv(
    op: Conv2d, layout: Layout, target: Target, parameters: Parameters, weight: Array, bias: Array
) -> PackedConv:
    by_tap = weight.transpose(2, 3, 1, 0)  # kh, kw, channels, filters
    offsets, groups, products = tap_offsets(op, layout, weight.shape[1]), [], 0
    for vectors, first, blocks in block_groups(op, target):
        height, block_weights, block_taps = vectors * target.simd_lanes, [], []
        for start in range(first, first + blocks * height, height):
            taps, compact = [], []
            for channel_group, low, high in group_spans(op, start, start + height):
                part = by_tap[..., low:high]
                alive = (part != 0).any(axis=-1)
                rows = np.zeros((int(alive.sum()), height), np.float32)
                rows[:, low - start : high - start] = part[alive]
                compact.append(rows)
                taps.append(offsets[alive] + np.int32(channel_group * weight.shape[1]))
                products += len(rows) * (high - low)
            block_weights.append(np.concatenate(compact))
            block_taps.append(np.concatenate(taps))
        kept = tuple(len(taps) for taps in block_taps)
        groups.append(
            Group(
                vectors,
                height,
                first,
                kept,
                parameters.put(np.concatenate(block_weights)),
                parameters.put(np.concatenate(block_taps)),
                parameters.put(np.cumsum((0, *kept)).astype(np.int32)),
            )
        )
    bias_place = parameters.put(np.pad(bias, (0, padded_filters(op, target) - op.filters)))
    return PackedConv(tuple(groups), bias_place, None if op.groups == 1 else products)


def _pack_winograd(
    op: Conv2d, way: winograd.Winograd, target: Target, parameters: Parameters, weights: Mapping[str, Array] | None
) -> PackedWinograd:
    kept, groups = [block.channels for block in way.living], []
    parts = None if weights is None else _winograd_parts(op, way, target, weights[f"{op.name}.weight"])
    for vectors, first, blocks in block_groups(op, target):
        own, kept = kept[:blocks], kept[blocks:]
        height, total = vectors * target.simd_lanes, sum(own)
        if parts is None:
            places = [parameters.reserve(way.planes * total * height)]
            if way.gathered:
                places += [parameters.reserve(total), parameters.reserve(blocks + 1)]
        else:
            compact, channels = zip(*(next(parts) for _ in range(blocks)), strict=True)
            places = [parameters.put(np.concatenate(compact, axis=1))]
            if way.gathered:
                pointers = np.cumsum((0, *own)).astype(np.int32)
                places += [parameters.put(np.concatenate(channels)), parameters.put(pointers)]
        groups.append(Group(vectors, height, first, tuple(own), *places, *(0,) * (3 - len(places))))
    width = padded_filters(op, target)
    bias = None if weights is None else np.pad(weights[f"{op.name}.bias"], (0, width - op.filters))
    return PackedWinograd(way, tuple(groups), parameters.reserve(width) if bias is None else parameters.put(bias))


def _winograd_parts(
    op: Conv2d, way: winograd.Winograd, target: Target, weight: Array
) -> Iterator[tuple[Array, NDArray[np.int32]]]:
    """Transformed weights [planes, channels of the block, height] and channels of every block of filters."""
    planes = winograd.transformed(weight, way.tile)  # planes x channels x filters
    for vectors, first, blocks in block_groups(op, target):
        height = vectors * target.simd_lanes
        for start in range(first, first + blocks * height, height):
            part, rows = planes[:, :, start : start + height], weight[start : start + height]
            part = np.pad(part, ((0, 0), (0, 0), (0, height - part.shape[-1])))
            channels = np.arange(way.channels, dtype=np.int32)
            if way.gathered:
                channels = channels[(rows != 0).any(axis=(0, 2, 3))]
            yield part[:, channels], channels


def padded_filters(op: Conv2d, target: Target) -> int:
    """Filters that the blocks of a layer cover."""
    vectors, first, blocks = block_groups(op, target)[-1]
    return first + blocks * vectors * target.simd_lanes


def _plan_conv(graph: Graph, op: Conv2d, target: Target, parameters: Parameters, seed: int) -> PackedConv:
    alive = seeded_taps(graph, op, seed=seed)
    taps = math.prod(weight_shape(graph, op)[1:])
    groups, products = [], 0
    for vectors, first, blocks in block_groups(op, target):
        height = vectors * target.simd_lanes
        kept = []
        for start in range(first, first + blocks * height, height):
            counts = []
            for _, low, high in group_spans(op, start, start + height):
                if alive is None or op.sparsity is None:
                    counts.append(taps)
                else:
                    first_row, last_row = low // op.sparsity.block_height, (high - 1) // op.sparsity.block_height
                    counts.append(int(alive[first_row : last_row + 1].any(axis=0).sum()))
                products += counts[-1] * (high - low)
            kept.append(sum(counts))
        groups.append(
            Group(
                vectors,
                height,
                first,
                tuple(kept),
                parameters.reserve(sum(kept) * height),
                parameters.reserve(sum(kept)),
                parameters.reserve(blocks + 1),
            )
        )
    bias_place = parameters.reserve(padded_filters(op, target))
    return PackedConv(tuple(groups), bias_place, None if op.groups == 1 else products)
