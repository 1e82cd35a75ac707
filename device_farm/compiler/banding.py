"""A fused block -> the calls of one band, by the kernels that compute whole layers too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from device_farm.compiler.convolving import conv_call
from device_farm.compiler.fusing import FusedBlock, ring_count, ring_shape
from device_farm.compiler.graph import NO_PADDING, Graph
from device_farm.compiler.kernels.spec import RingDepthwiseKernel
from device_farm.compiler.layout import Memory
from device_farm.compiler.packing import Group, Packed, PackedConv, PackedDepthwise
from device_farm.compiler.sliding import band_cut
from device_farm.compiler.steps import Bands, Call, Chunk, Place, Variable, View
from device_farm.compiler.strides import Layout
from device_farm.compiler.target import Target


def lower_block(block: FusedBlock, graph: Graph, memory: Memory, packed: Packed, target: Target) -> Bands:
    return _Banding(block, graph, memory, packed, target).bands()


@dataclass(frozen=True)
class _Banding:
    block: FusedBlock
    graph: Graph
    memory: Memory
    packed: Packed
    target: Target

    def bands(self) -> Bands:
        op, span = self.block.depthwise, self.block.span
        stride, top, height = op.stride[0], op.padding.top, self.graph.shapes[op.inputs[0]].height
        output_rows = self.graph.shapes[op.name].height
        padded_rows = (output_rows - 1) * stride + (op.kernel[0] - 1) * op.dilation[0] + 1
        slots = [row % span if 0 <= row - top < height else span for row in range(padded_rows)]
        return Bands(
            rows=self.block.rows,
            output_rows=output_rows,
            ring=self._ring,
            lines=tuple(slot * self._ring.row_stride for slot in slots),
            reach=span - top,
            stride=stride,
            expanded_rows=height,
            chunks=tuple(
                Chunk(self._ring_start(first), tuple(self._expand(first)), self._depthwise(first))
                for first in self._chunks
            ),
            project=tuple(self._project()),
        )

    @property
    def _chunks(self) -> range:
        """First channels of the chunks."""
        return range(0, self.memory.layouts[self.block.expand.name].pixel_stride, self.block.chunk)

    @cached_property
    def _ring(self) -> Layout:
        return Layout(*ring_shape(self.graph, self.block), self.block.chunk)

    def _ring_start(self, first: int) -> int:
        """The rings lie one after the other in the scratch memory."""
        index = first // self.block.chunk % ring_count(self.graph, self.block)
        return self.memory.scratch + index * self._ring.elements

    @cached_property
    def _filtered(self) -> View:
        """One band of the depthwise output, behind the rings."""
        whole = self.memory.layouts[self.block.depthwise.name]
        layout = Layout(whole.shape._replace(height=self.block.rows), NO_PADDING, whole.pixel_stride)
        return View(layout, self.memory.scratch + ring_count(self.graph, self.block) * self._ring.elements)

    def _expand(self, first: int) -> Iterator[Call]:
        """`count` rows from `first` on into the ring from `slot` on."""
        op, packed, ring = self.block.expand, self.packed[self.block.expand.name], self._ring
        assert isinstance(packed, PackedConv)
        x = self._view(op.inputs[0])
        # One row, as a run of them may be as short as that. Groups count their filters from the layer's first one.
        y = View(_cut(ring, 1), self._ring_start(first) - first)
        for group in packed.groups:
            if (part := _blocks_between(group, first, first + self.block.chunk)) is not None:
                call = conv_call(op, packed, part, x=x, y=y, residual=None, target=self.target, recut=False, fixed=True)
                yield call.replaced(
                    x=_moved(call, "x", Variable.FIRST, op.stride[0] * x.layout.row_stride),
                    y=_moved(call, "y", Variable.SLOT, ring.row_stride),
                    rows=Variable.COUNT,
                    band=self.block.span,
                )

    def _depthwise(self, first: int) -> Call:
        op, packed = self.block.depthwise, self.packed[self.block.depthwise.name]
        assert isinstance(packed, PackedDepthwise)
        y = self._filtered.layout
        channels = min(self.block.chunk, y.pixel_stride - first)
        tiling, row_pairs = band_cut(op, y, self.graph.shapes[op.name].height, self.target)
        spec = RingDepthwiseKernel(
            kernel=op.kernel,
            stride=op.stride,
            dilation=op.dilation,
            tile_rows=tiling.tile_rows,
            tile_columns=tiling.tile_columns,
            pixel_stride=self.block.chunk,
            activation=op.activation,
            row_pairs=row_pairs,
        )
        return Call(
            spec,
            {
                "x": Place("arena", self._ring_start(first)),
                "y": self._filtered.at(channel=first),
                "weights": Place("parameters", packed.weights + first),
                "bias": Place("parameters", packed.bias + first),
                "lines": Place("lines", 0, ((Variable.ROW, op.stride[0]),)),
                "rows": tiling.rows,
                "columns": tiling.columns,
                "vectors": channels // self.target.simd_lanes,
                "w_row": y.pixel_stride,
                "y_row": y.row_stride,
                "y_pixel": y.pixel_stride,
            },
        )

    def _project(self) -> Iterator[Call]:
        """A band of output rows from `row` on."""
        op, packed, rows = self.block.project, self.packed[self.block.project.name], self.block.rows
        assert isinstance(packed, PackedConv)
        y, residual = self._view(op.name, rows), self._view(op.inputs[1], rows) if len(op.inputs) == 2 else None
        for group in packed.groups:
            call = conv_call(op, packed, group, x=self._filtered, y=y, residual=residual, target=self.target)
            yield call.replaced(
                y=_moved(call, "y", Variable.ROW, y.layout.row_stride),
                residual=_moved(call, "residual", Variable.ROW, (residual or y).layout.row_stride),
            )

    def _view(self, name: str, rows: int | None = None) -> View:
        layout = self.memory.layouts[name]
        return View(layout if rows is None else _cut(layout, rows), self.memory.offsets[name])


def _cut(layout: Layout, rows: int) -> Layout:
    return dataclasses.replace(layout, shape=layout.shape._replace(height=rows))


def _blocks_between(group: Group, start: int, end: int) -> Group | None:
    """The blocks whose filters lie in start..end, which is a whole number of them; None if there are none."""
    first = max(0, (start - group.first_filter) // group.height)
    last = min(len(group.kept), (end - group.first_filter) // group.height)
    if first >= last:
        return None
    return dataclasses.replace(
        group,
        first_filter=group.first_filter + first * group.height,
        kept=group.kept[first:last],
        pointers=group.pointers + first,
    )


def _moved(call: Call, name: str, variable: Variable, stride: int) -> Place:
    place = call.arguments[name]
    assert isinstance(place, Place)
    return dataclasses.replace(place, moves=((variable, stride),))
