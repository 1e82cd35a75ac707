"""Weights and taps in the order in which the kernels read them, and their places among an artifact's parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler import winograd
from device_farm.compiler.blocking import BlockGroup, Mask, cut, tap_channels
from device_farm.compiler.element import Element
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Graph, ScatterChannels
from device_farm.compiler.layout import Memory, TapPlaces, tap_places
from device_farm.compiler.strides import pad_channels
from device_farm.compiler.target import RegisterTile, Target
from device_farm.compiler.weights import Array, seeded_taps, weight_shape

CACHE_LINE = 64  # bytes, to which all arrays are aligned
INTEGER_BYTES = 4


@dataclass(frozen=True)
class Group:
    """Blocks of one height within a convolution; `kept` taps in each."""

    vectors: int  # SIMD vectors of filters a block
    height: int  # filters a block
    first_filter: int
    kept: tuple[int, ...]
    weights: int  # places among the parameters, in elements and, of taps and pointers, in integers
    taps: int
    pointers: int
    tile: RegisterTile | None = None  # of a direct convolution
    tap_channels: int = 1


@dataclass(frozen=True)
class PackedConv:
    groups: tuple[Group, ...]
    bias: int
    products: int | None = (
        None  # multiply-accumulates a pixel, where blocks also hold zeros of other groups of channels
    )
    padded_filters: int = 0  # that the blocks cover

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
    """All parameters of an artifact: numbers of the element's type and int32, with a place for each array of them.

    A place counts what the array holds: elements or integers. Without values it only hands out places, and the device
    fills them from a seed.
    """

    def __init__(self, element: Element = Element.FLOAT32) -> None:
        self.element = element
        self.bytes = 0
        self._parts: list[tuple[int, bytes]] = []

    def reserve(self, elements: int) -> int:
        return self._reserve(elements * self.element.bytes) // self.element.bytes

    def reserve_integers(self, count: int) -> int:
        return self._reserve(count * INTEGER_BYTES) // INTEGER_BYTES

    def put(self, array: Array, what: str = "an array") -> int:
        """Place of a float32 array, which is kept as elements, or of an int32 one.

        Raises InvalidGraph in the name of `what` where a value does not fit.
        """
        if array.dtype != np.int32:
            array = self.element.converted(array, what)
        content = np.ascontiguousarray(array).tobytes()
        place = self._reserve(len(content))
        self._parts.append((place, content))
        return place // array.itemsize

    def to_bytes(self) -> bytes:
        blob = bytearray(self.bytes)
        for place, content in self._parts:
            blob[place : place + len(content)] = content
        return bytes(blob)

    def _reserve(self, size: int) -> int:
        place = self.bytes
        self.bytes += max(math.ceil(size / CACHE_LINE), 1) * CACHE_LINE
        return place


Packed = Mapping[str, PackedConv | PackedWinograd | PackedDepthwise | PackedScatter]


def pack(
    graph: Graph, memory: Memory, *, target: Target, weights: Mapping[str, Array] | None, seed: int
) -> tuple[Packed, Parameters]:
    """Packs the given weights, or, without them, plans the places that the device fills from the seed."""
    parameters = Parameters(target.element)
    packed: dict[str, PackedConv | PackedWinograd | PackedDepthwise | PackedScatter] = {}
    for op in graph.ops:
        if isinstance(op, Conv2d):
            way = memory.winograd.get(op.name)
            if way is not None:
                packed[op.name] = _pack_winograd(op, way, target, parameters, weights)
            else:
                given = None if weights is None else (weights[f"{op.name}.weight"], weights[f"{op.name}.bias"])
                groups = cut(op, target, _living(graph, op, None if given is None else given[0], seed))
                channels = weight_shape(graph, op)[1]
                packed[op.name] = _pack_conv(
                    op,
                    tap_places(op, memory),
                    target,
                    parameters,
                    groups=groups,
                    channels=channels,
                    given=given,
                )
        elif isinstance(op, DepthwiseConv2d):
            channels, _, kh, kw = weight_shape(graph, op)
            width = pad_channels(channels, target)
            if weights is None:
                packed[op.name] = PackedDepthwise(parameters.reserve(kh * kw * width), parameters.reserve(width))
            else:
                by_position = weights[f"{op.name}.weight"].reshape(channels, kh * kw).T
                packed[op.name] = PackedDepthwise(
                    parameters.put(np.pad(by_position, ((0, 0), (0, width - channels))), f"{op.name}.weight"),
                    parameters.put(np.pad(weights[f"{op.name}.bias"], (0, width - channels)), f"{op.name}.bias"),
                )
        elif isinstance(op, ScatterChannels):
            index = None if weights is None else weights[f"{op.name}.index"]
            channels = graph.input_shapes(op)[0].channels
            packed[op.name] = PackedScatter(
                parameters.reserve_integers(channels) if index is None else parameters.put(index)
            )
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


def _pack_conv(
    op: Conv2d,
    places: TapPlaces,
    target: Target,
    parameters: Parameters,
    *,
    groups: tuple[BlockGroup, ...],
    channels: int,
    given: tuple[Array, Array] | None,
) -> PackedConv:
    """Places for the taps of `groups`, of `channels` channels of a group; `given` are weight and bias."""
    positions = np.array(places.positions, np.int32).reshape(*op.kernel, 1)
    offsets = positions + np.arange(0, channels, dtype=np.int32) * np.int32(places.channel)
    width, packed = tap_channels(groups, target), []
    for group in groups:
        units = [[span.units(width) for span in block] for block in group.blocks]
        counts = [sum(int(np.count_nonzero(mask)) for mask in block) for block in units] if width > 1 else group.kept
        if given is None:
            arrays = (
                parameters.reserve(sum(counts) * width * group.tile.height),
                parameters.reserve_integers(sum(counts)),
                parameters.reserve_integers(len(counts) + 1),
            )
        else:
            weights, taps = _compact(group, units, width, given[0], offsets[..., ::width], places.channel)
            pointers = np.cumsum((0, *counts)).astype(np.int32)
            arrays = (
                parameters.put(weights, f"{op.name}.weight"),
                parameters.put(taps),
                parameters.put(pointers),
            )
        by = group.tile
        packed.append(Group(by.vectors, by.height, group.first_filter, group.kept, *arrays, by, width))
    covered = groups[-1].first_filter + len(groups[-1].blocks) * groups[-1].tile.height
    if given is None:
        bias = parameters.reserve(covered)
    else:
        bias = parameters.put(np.pad(given[1], (0, covered - op.filters)), f"{op.name}.bias")
    products = sum(group.products for group in groups)
    return PackedConv(tuple(packed), bias, None if op.groups == 1 else products, covered)


def _compact(
    group: BlockGroup, units: list[list[Mask]], width: int, weight: Array, offsets: NDArray[np.int32], channel: int
) -> tuple[Array, Array]:
    """Weights [taps of all blocks, `width` channels of a tap, filters of a block] and taps' offsets.

    `offsets` are those of the first group of channels, `channel` leads from one to the next.
    """
    by_tap, channels = weight.transpose(2, 3, 1, 0), weight.shape[1]  # kh, kw, channels, filters
    weights, taps = [np.zeros((0, width, group.tile.height), np.float32)], [np.zeros(0, np.int32)]
    for index, (block, masks) in enumerate(zip(group.blocks, units, strict=True)):
        start = group.first_filter + index * group.tile.height
        for span, alive in zip(block, masks, strict=True):
            part = np.pad(by_tap[..., span.low : span.high], ((0, 0), (0, 0), (0, -channels % width), (0, 0)))
            kept = part.reshape(*alive.shape, width, part.shape[-1])[alive]
            behind = group.tile.height - (span.high - start)
            weights.append(np.pad(kept, ((0, 0), (0, 0), (span.low - start, behind))))
            taps.append(offsets[alive] + np.int32(span.group * channels * channel))
    return np.concatenate(weights), np.concatenate(taps)


def _pack_winograd(
    op: Conv2d, way: winograd.Winograd, target: Target, parameters: Parameters, weights: Mapping[str, Array] | None
) -> PackedWinograd:
    kept, groups = [block.channels for block in way.living], []
    parts = None if weights is None else _winograd_parts(op, way, target, weights[f"{op.name}.weight"])
    for vectors, first, blocks in block_groups(op, target):
        own, kept = kept[:blocks], kept[blocks:]
        height, total = vectors * target.simd_lanes, sum(own)
        if parts is None:
            place, lists, pointers = parameters.reserve(way.planes * total * height), 0, 0
            if way.gathered:
                lists, pointers = parameters.reserve_integers(total), parameters.reserve_integers(blocks + 1)
        else:
            compact, channels = zip(*(next(parts) for _ in range(blocks)), strict=True)
            place, lists, pointers = parameters.put(np.concatenate(compact, axis=1), f"{op.name}.weight"), 0, 0
            if way.gathered:
                lists = parameters.put(np.concatenate(channels))
                pointers = parameters.put(np.cumsum((0, *own)).astype(np.int32))
        groups.append(Group(vectors, height, first, tuple(own), place, lists, pointers))
    width = padded_filters(op, target)
    bias = None if weights is None else np.pad(weights[f"{op.name}.bias"], (0, width - op.filters))
    bias_place = parameters.reserve(width) if bias is None else parameters.put(bias, f"{op.name}.bias")
    return PackedWinograd(way, tuple(groups), bias_place)


def _winograd_parts(
    op: Conv2d, way: winograd.Winograd, target: Target, weight: Array
) -> Iterator[tuple[Array, NDArray[np.int32]]]:
    """Transformed weights [planes, channels of the block, height] and channels of every block of filters."""
    planes = winograd.transformed_stem(weight) if way.is_stem else winograd.transformed(weight, way.tile)
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


def _living(graph: Graph, op: Conv2d, weight: Array | None, seed: int) -> Callable[[int, int], Mask]:
    """The taps [kh, kw, channels] that any of some filters uses: as the weights are, or as the seed will make them."""
    if weight is not None:
        alive = (weight != 0).transpose(0, 2, 3, 1)
        return lambda low, high: _any(alive[low:high])
    seeded = seeded_taps(graph, op, seed=seed)
    if seeded is None or op.sparsity is None:
        _, channels, kh, kw = weight_shape(graph, op)
        everything = np.ones((kh, kw, channels), bool)
        return lambda low, high: everything
    by_block, height = seeded.transpose(0, 2, 3, 1), op.sparsity.block_height
    return lambda low, high: _any(by_block[low // height : (high - 1) // height + 1])


def _any(alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Over the first axis."""
    return np.asarray(alive.any(axis=0))
