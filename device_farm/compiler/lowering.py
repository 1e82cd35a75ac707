"""Graph -> steps: which kernels run, on which arguments. Pure: nothing is generated or written here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from device_farm.compiler import winograd
from device_farm.compiler.banding import lower_block
from device_farm.compiler.convolving import conv_call, planar_calls
from device_farm.compiler.fusing import FusedBlock
from device_farm.compiler.graph import (
    Activate,
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Multiply,
    Op,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
    ShuffleChannels,
    SliceChannels,
    Softmax,
)
from device_farm.compiler.kernels.spec import (
    DepthwiseKernel,
    Elementwise,
    ElementwiseKernel,
    PhasesKernel,
    PoolKernel,
    ResizeKernel,
    ScatterKernel,
    ShuffleKernel,
    SoftmaxKernel,
    WinogradGatheredProduct,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from device_farm.compiler.layout import Memory
from device_farm.compiler.packing import Group, Packed, PackedConv, PackedDepthwise, PackedScatter, PackedWinograd
from device_farm.compiler.steps import Argument, Call, Place, Step, TiledView, View
from device_farm.compiler.strides import Layout
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import depthwise_tiling, part_taps
from device_farm.compiler.winograd import product_pixels
from device_farm.errors import UnsupportedOperator


def lower(graph: Graph, memory: Memory, packed: Packed, target: Target) -> tuple[Step, ...]:
    """Steps in the order of the graph. Raises UnsupportedOperator."""
    lowering = _Lowering(graph, memory, packed, target)
    inner = {op.name for block in memory.blocks for op in block.inner}
    fused = {block.project.name: block for block in memory.blocks}
    return tuple(
        lowering.fused_step(fused[op.name]) if op.name in fused else lowering.step(op)
        for op in graph.ops
        if not isinstance(op, Input) and op.name not in inner
    )


@dataclass(frozen=True)
class _Lowering:
    graph: Graph
    memory: Memory
    packed: Packed
    target: Target

    def step(self, op: Op) -> Step:
        macs, kept_macs = op.macs(*self.graph.input_shapes(op)), self._kept_macs(op)
        match op:
            case Conv2d() if isinstance(by_winograd := self.packed[op.name], PackedWinograd):
                calls = self._winograd(op, by_winograd)
            case Conv2d():
                packed = self.packed[op.name]
                assert isinstance(packed, PackedConv)
                calls = tuple(self._conv(op, packed))
            case DepthwiseConv2d():
                calls = (self._depthwise(op),)
            case Pool2d():
                calls = (self._pool(op),)
            case Add() | Multiply() | Activate():
                calls = (self._elementwise(op),)
            case Softmax():
                pixels = self._pixels(op) | {"channels": self._layout(op.name).shape.channels}
                calls = (Call(SoftmaxKernel(), pixels),)
            case Concat():
                calls = self._concat(op)
            case SliceChannels():
                calls = (self._copy(op, 0, source_channel=op.first, channels=op.channels),)
            case ShuffleChannels():
                calls = (self._shuffle(op),)
            case ResizeChannels():
                calls = (self._resize(op),)
            case ScatterChannels():
                calls = (self._scatter(op),)
            case _:
                raise UnsupportedOperator(
                    f"{op.name}: no kernel for {op.kind!r}; express it by the operators of device_farm.compiler.graph"
                )
        return Step(op, calls, macs, kept_macs)

    def fused_step(self, block: FusedBlock) -> Step:
        bands = lower_block(block, self.graph, self.memory, self.packed, self.target)
        ops = (*block.inner, block.project)
        macs = [op.macs(*self.graph.input_shapes(op)) for op in ops]
        kept = [self._kept_macs(op) for op in ops]
        return Step(block.project, bands.calls, sum(macs), sum(kept), block.inner, bands)

    def _kept_macs(self, op: Op) -> int:
        packed, out = self.packed.get(op.name), self.graph.shapes[op.name]
        if isinstance(op, Conv2d) and isinstance(packed, PackedConv | PackedWinograd):
            return packed.kept_macs(op.filters, out.height * out.width)
        return op.macs(*self.graph.input_shapes(op))

    def _layout(self, name: str) -> Layout:
        return self.memory.layouts[name]

    def _at(self, name: str, y: int = 0, x: int = 0, channel: int = 0) -> Place:
        return Place("arena", self.memory.offsets[name] + self._layout(name).offset(y, x) + channel)

    def _vectors(self, layout: Layout) -> int:
        """SIMD vectors of one pixel."""
        return layout.pixel_stride // self.target.simd_lanes

    def _pixels(self, op: Op, index: int = 0) -> dict[str, Argument]:
        """The arguments of all kernels that go from x, the input of that index, to y pixel by pixel."""
        x, y = self._layout(op.inputs[index]), self._layout(op.name)
        return {
            "x": self._at(op.inputs[index]),
            "y": self._at(op.name),
            "rows": y.shape.height,
            "columns": y.shape.width,
            "vectors": self._vectors(y),
            "x_row": x.row_stride,
            "x_pixel": x.pixel_stride,
            "y_row": y.row_stride,
            "y_pixel": y.pixel_stride,
        }

    def _view(self, name: str) -> View:
        return View(self._layout(name), self.memory.offsets[name])

    def _kept(self, name: str) -> View | TiledView:
        planes = self.memory.tiled.get(name)
        return self._view(name) if planes is None else TiledView(planes, self.memory.offsets[name])

    def _conv(self, op: Conv2d, packed: PackedConv) -> Iterator[Call]:
        image = self.memory.planar.get(op.name)
        if image is not None:
            others = self._kept(op.inputs[1]) if len(op.inputs) == 2 else None
            (group,), planes = packed.groups, Place("arena", self.memory.scratch)
            x, y = self._kept(op.inputs[0]), self._kept(op.name)
            yield from planar_calls(op, packed, group, image, x=x, y=y, residual=others, planes=planes)
            return
        x, y = self._view(op.inputs[0]), self._view(op.name)
        residual = self._view(op.inputs[1]) if len(op.inputs) == 2 else None
        for group in packed.groups:
            yield conv_call(op, packed, group, x=x, y=y, residual=residual, target=self.target)

    def _winograd(self, op: Conv2d, packed: PackedWinograd) -> tuple[Call, ...]:
        way, x, y = packed.way, self._layout(op.inputs[0]), self._layout(op.name)
        residual = op.inputs[1] if len(op.inputs) == 2 else None
        r = self._layout(residual or op.name)
        v = Place("arena", self.memory.scratch)
        m = Place("arena", self.memory.scratch + way.planes * way.v_plane)
        tiles: dict[str, Argument] = {
            "tiles": way.block,
            "tile_columns": way.tile_columns,
            "rows": way.height,
            "columns": way.width,
            "v_tile": way.v_tile,
            "v_plane": way.v_plane,
            "m_tile": way.m_tile,
            "m_plane": way.m_plane,
        }
        source: dict[str, Argument] = {
            "x": self._at(op.inputs[0], -op.padding.top, -op.padding.left),
            "v": v,
            "vectors": self._vectors(x),
            "x_row": x.row_stride,
            "x_pixel": x.pixel_stride,
        }
        result: dict[str, Argument] = {
            "m": m,
            "y": self._at(op.name),
            "bias": Place("parameters", packed.bias),
            "residual": self._at(residual or op.name),
            "vectors": self._vectors(y),
            "y_row": y.row_stride,
            "y_pixel": y.pixel_stride,
            "r_row": r.row_stride,
            "r_pixel": r.pixel_stride,
        }

        def product(group: Group) -> Call:
            vectors, tiles_at_once = group.vectors, product_pixels(way.block, group.vectors, self.target)
            channels = sum(group.kept) if way.gathered else way.channels * len(group.kept)
            weight_bytes = self.target.element.bytes * way.planes * channels * group.height
            prefetches = self.target.prefetches and weight_bytes > self.target.near_bytes
            parts = part_taps(group.kept if way.gathered else [way.channels], 1, self.target)
            spec = (
                WinogradGatheredProduct(vectors, tiles_at_once, parts, prefetches, v_tile=way.v_tile)
                if way.gathered
                else WinogradProduct(vectors, tiles_at_once, parts, prefetches)
            )
            arguments: dict[str, Argument] = {
                "v": v,
                "weights": Place("parameters", group.weights),
                "m": Place("arena", m.offset + group.first_filter),
                "planes": way.planes,
                "blocks": len(group.kept),
                "channels": way.channels,
                "all_channels": sum(group.kept),
                "lists": Place("parameters", group.taps),
                "pointers": Place("parameters", group.pointers),
            }
            return Call(spec, tiles | arguments, block_taps=group.kept if way.gathered else ())

        calls: list[Call] = []
        for start in way.first_tiles:
            first: dict[str, Argument] = {"first": start}
            if way.is_stem:
                calls += self._stem_input(op, way, tiles | source, start)
            else:
                calls.append(Call(WinogradInput(way.tile), tiles | source | first))
            calls += [product(group) for group in packed.groups]
            output = WinogradOutput(way.tile, op.activation, residual is not None, way.taps)
            calls.append(Call(output, tiles | result | first))
        return tuple(calls)

    def _stem_input(
        self, op: Conv2d, way: winograd.Winograd, arguments: dict[str, Argument], start: int
    ) -> Iterator[Call]:
        """The phases under a row of tiles, before the first block of the row, and the transform of a block of them."""
        x, phases = self._layout(op.inputs[0]), Place("arena", self.memory.scratch + way.workspace - way.phase_floats)
        tile_row, first = divmod(start, way.tile_columns)
        row = min(tile_row * way.tile, way.height - way.tile)
        if first == 0:
            image: dict[str, Argument] = {
                "x": self._at(op.inputs[0], 2 * row - op.padding.top, -op.padding.left),
                "y": phases,
                "rows": way.phase_rows,
                "columns": way.phase_columns,
                "x_row": x.row_stride,
            }
            yield Call(PhasesKernel(x.shape.channels, winograd.LINE), image)
        one_row: dict[str, Argument] = {
            "x": phases,
            "first": first,
            "rows": way.tile,
            "vectors": math.ceil(way.channels / self.target.simd_lanes),
            "x_row": way.phase_columns * winograd.LINE,
            "x_pixel": winograd.LINE,
        }
        yield Call(WinogradInput(way.tile, way.taps), arguments | one_row)

    def _depthwise(self, op: DepthwiseConv2d) -> Call:
        x, y, packed = self._layout(op.inputs[0]), self._layout(op.name), self.packed[op.name]
        assert isinstance(packed, PackedDepthwise)
        tiling = depthwise_tiling(y.shape.height, y.shape.width, kernel=op.kernel, stride=op.stride, target=self.target)
        spec = DepthwiseKernel(
            kernel=op.kernel,
            stride=op.stride,
            dilation=op.dilation,
            tile_rows=tiling.tile_rows,
            tile_columns=tiling.tile_columns,
            pixel_stride=y.pixel_stride,
            activation=op.activation,
        )
        return Call(
            spec,
            {
                "x": self._at(op.inputs[0], -op.padding.top, -op.padding.left),
                "y": self._at(op.name),
                "weights": Place("parameters", packed.weights),
                "bias": Place("parameters", packed.bias),
                "rows": tiling.rows,
                "columns": tiling.columns,
                "x_row": x.row_stride,
                "y_row": y.row_stride,
            },
        )

    def _pool(self, op: Pool2d) -> Call:
        x = self._layout(op.inputs[0])
        window: dict[str, Argument] = {
            "scale": 1.0 / (op.kernel[0] * op.kernel[1]) if op.pool is PoolKind.AVERAGE else 1.0,
            "height": x.shape.height,
            "width": x.shape.width,
            "window_height": op.kernel[0],
            "window_width": op.kernel[1],
            "stride_y": op.stride[0],
            "stride_x": op.stride[1],
            "top": op.padding.top,
            "left": op.padding.left,
        }
        return Call(PoolKernel(op.pool), self._pixels(op) | window)

    def _elementwise(self, op: Add | Multiply | Activate) -> Call:
        a, b, y = (self._layout(name) for name in (op.inputs[0], op.inputs[-1], op.name))
        repeats = b.shape != y.shape  # one vector for all pixels: then a row is walked pixel by pixel
        operation = {"add": Elementwise.ADD, "multiply": Elementwise.MULTIPLY}.get(op.kind, Elementwise.NOTHING)
        spec = ElementwiseKernel(operation, op.activation)
        if (planes := self.memory.tiled.get(op.name)) is not None:
            tile: dict[str, Argument] = dict.fromkeys(("a_row", "b_row", "y_row"), planes.tile)
            images: dict[str, Argument] = {
                name: Place("arena", self.memory.offsets[image])
                for name, image in (("a", op.inputs[0]), ("b", op.inputs[-1]), ("y", op.name))
            }
            vectors = planes.tile // self.target.simd_lanes
            return Call(spec, images | tile | {"rows": planes.tiles, "columns": 1, "vectors": vectors, "pixel": 0})
        return Call(
            spec,
            {
                "a": self._at(op.inputs[0]),
                "b": self._at(op.inputs[-1]),
                "y": self._at(op.name),
                "rows": y.shape.height,
                "columns": y.shape.width if repeats else 1,
                "vectors": self._vectors(y) * (1 if repeats else y.shape.width),
                "pixel": y.pixel_stride,
                "a_row": a.row_stride,
                "b_row": 0 if repeats else b.row_stride,
                "y_row": y.row_stride,
            },
        )

    def _copy(
        self, op: Op, index: int, *, source_channel: int = 0, channel: int = 0, channels: int, whole: bool = True
    ) -> Call:
        """Some channels of an input to a place in the output's pixels; `whole` also zeroes what is behind them."""
        copied, tail = divmod(channels, self.target.simd_lanes)
        source = op.inputs[index]
        return Call(
            ResizeKernel(),
            self._pixels(op, index)
            | {
                "x": self._at(source, channel=source_channel),
                "y": self._at(op.name, channel=channel),
                "copied": copied,
                "tail": tail,
            }
            | ({} if whole else {"vectors": copied}),
        )

    def _concat(self, op: Concat) -> tuple[Call, ...]:
        """One copy a part, after the lanes behind the last channel were zeroed."""
        y, lanes, calls, channel = self._layout(op.name), self.target.simd_lanes, [], 0
        if y.shape.channels % lanes:
            zeros: dict[str, Argument] = {
                "y": self._at(op.name, channel=y.pixel_stride - lanes), "copied": 0, "tail": 0, "vectors": 1
            }  # fmt: skip
            calls.append(Call(ResizeKernel(), self._pixels(op) | zeros))
        for index, name in enumerate(op.inputs):
            channels = self._layout(name).shape.channels
            calls.append(self._copy(op, index, channel=channel, channels=channels, whole=False))
            channel += channels
        return tuple(calls)

    def _shuffle(self, op: ShuffleChannels) -> Call:
        channels = self._layout(op.name).shape.channels
        groups: dict[str, Argument] = {"groups": op.groups, "channels": channels // op.groups}
        return Call(ShuffleKernel(), self._pixels(op) | groups)

    def _resize(self, op: ResizeChannels) -> Call:
        x, lanes = self._layout(op.inputs[0]), self.target.simd_lanes
        kept = min(op.channels, x.shape.channels)
        copied: dict[str, Argument] = {"copied": kept // lanes, "tail": kept % lanes}
        return Call(ResizeKernel(), self._pixels(op) | copied)

    def _scatter(self, op: ScatterChannels) -> Call:
        packed = self.packed[op.name]
        assert isinstance(packed, PackedScatter)
        index: dict[str, Argument] = {
            "index": Place("parameters", packed.index),
            "channels": self._layout(op.inputs[0]).shape.channels,
        }
        return Call(ScatterKernel(), self._pixels(op) | index)
