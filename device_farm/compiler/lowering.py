"""Graph -> steps: which kernels run, on which arguments. Pure: nothing is generated or written here."""

from __future__ import annotations

from dataclasses import dataclass

from device_farm.compiler.banding import lower_block
from device_farm.compiler.convolving import conv_call
from device_farm.compiler.fusing import FusedBlock
from device_farm.compiler.graph import (
    Activate,
    Add,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Op,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
)
from device_farm.compiler.kernels.spec import (
    DepthwiseKernel,
    ElementwiseKernel,
    PoolKernel,
    ResizeKernel,
    ScatterKernel,
)
from device_farm.compiler.layout import Layout, Memory
from device_farm.compiler.packing import Group, Packed, PackedConv, PackedDepthwise, PackedScatter
from device_farm.compiler.steps import Argument, Call, Place, Step, View
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import depthwise_tiling
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
            case Conv2d():
                packed = self.packed[op.name]
                assert isinstance(packed, PackedConv)
                calls = tuple(self._conv(op, packed, group) for group in packed.groups)
            case DepthwiseConv2d():
                calls = (self._depthwise(op),)
            case Pool2d():
                calls = (self._pool(op),)
            case Add() | Activate():
                calls = (self._elementwise(op),)
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
        if isinstance(op, Conv2d) and isinstance(packed, PackedConv):
            return packed.kept_macs(op.filters, out.height * out.width)
        return op.macs(*self.graph.input_shapes(op))

    def _layout(self, name: str) -> Layout:
        return self.memory.layouts[name]

    def _at(self, name: str, y: int = 0, x: int = 0, channel: int = 0) -> Place:
        return Place("arena", self.memory.offsets[name] + self._layout(name).offset(y, x) + channel)

    def _vectors(self, layout: Layout) -> int:
        """SIMD vectors of one pixel."""
        return layout.pixel_stride // self.target.simd_lanes

    def _pixels(self, op: Op) -> dict[str, Argument]:
        """The arguments of all kernels that go from x to y pixel by pixel."""
        x, y = self._layout(op.inputs[0]), self._layout(op.name)
        return {
            "x": self._at(op.inputs[0]),
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

    def _conv(self, op: Conv2d, packed: PackedConv, group: Group) -> Call:
        residual = self._view(op.inputs[1]) if len(op.inputs) == 2 else None
        x, y = self._view(op.inputs[0]), self._view(op.name)
        return conv_call(op, packed, group, x=x, y=y, residual=residual, target=self.target)

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

    def _elementwise(self, op: Add | Activate) -> Call:
        a, b, y = (self._layout(name) for name in (op.inputs[0], op.inputs[-1], op.name))
        return Call(
            ElementwiseKernel(len(op.inputs), op.activation),
            {
                "a": self._at(op.inputs[0]),
                "b": self._at(op.inputs[-1]),
                "y": self._at(op.name),
                "rows": y.shape.height,
                "vectors": y.shape.width * self._vectors(y),
                "a_row": a.row_stride,
                "b_row": b.row_stride,
                "y_row": y.row_stride,
            },
        )

    def _resize(self, op: ResizeChannels) -> Call:
        x, lanes = self._layout(op.inputs[0]), self.target.simd_lanes
        grows = op.channels >= x.shape.channels
        copied: dict[str, Argument] = {
            "copied": self._vectors(x) if grows else op.channels // lanes,
            "tail": 0 if grows else op.channels % lanes,
        }
        return Call(ResizeKernel(), self._pixels(op) | copied)

    def _scatter(self, op: ScatterChannels) -> Call:
        packed = self.packed[op.name]
        assert isinstance(packed, PackedScatter)
        index: dict[str, Argument] = {
            "index": Place("parameters", packed.index),
            "channels": self._layout(op.inputs[0]).shape.channels,
        }
        return Call(ScatterKernel(), self._pixels(op) | index)
