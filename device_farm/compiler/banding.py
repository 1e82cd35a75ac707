"""A fused block -> the calls of one band, by the kernels that compute whole layers too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from device_farm.compiler.convolving import conv_call
from device_farm.compiler.fusing import FusedBlock, ring_shape
from device_farm.compiler.graph import NO_PADDING, Graph
from device_farm.compiler.kernels.spec import RingDepthwiseKernel
from device_farm.compiler.layout import Layout, Memory
from device_farm.compiler.packing import Group, Packed, PackedConv, PackedDepthwise
from device_farm.compiler.steps import Bands, Call, Chunk, Place, Variable, View
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import depthwise_tiling


def lower_block(block: FusedBlock, graph: Graph, memory: Memory, packed: Packed, target: Target) -> Bands:
    """Rings of all chunks lie one after the other in the scratch memory, behind them a band of the depthwise output."""
    expand, depthwise, project = block.expand, block.depthwise, block.project
    expanded, filtered = memory.layouts[expand.name], memory.layouts[depthwise.name]
    shape, border = ring_shape(graph, block)
    ring = Layout(shape, border, block.chunk)
    starts = range(0, expanded.pixel_stride, block.chunk)
    rings = [memory.scratch + ring.elements * index for index in range(len(starts))]
    band = View(
        Layout(filtered.shape._replace(height=block.rows), NO_PADDING, filtered.pixel_stride),
        memory.scratch + ring.elements * len(starts),
    )

    stride, top = depthwise.stride[0], depthwise.padding.top
    height, output_rows = graph.shapes[expand.name].height, filtered.shape.height
    padded_rows = (output_rows - 1) * stride + (depthwise.kernel[0] - 1) * depthwise.dilation[0] + 1
    slots = [(row - top) % block.span if 0 <= row - top < height else block.span for row in range(padded_rows)]

    def widths(start: int) -> int:
        return min(block.chunk, expanded.pixel_stride - start)

    chunks = tuple(
        Chunk(
            place,
            tuple(_expand(block, place, start, ring, memory, packed, target)),
            _depthwise(block, place, start, widths(start), ring, band, packed, target),
        )
        for place, start in zip(rings, starts, strict=True)
    )
    return Bands(
        rows=block.rows,
        output_rows=output_rows,
        ring=ring,
        lines=tuple(slot * ring.row_stride for slot in slots),
        reach=block.span - top,
        stride=stride,
        expanded_rows=height,
        chunks=chunks,
        project=tuple(_project(project, block.rows, band, memory, packed, target)),
    )


def _expand(
    block: FusedBlock, place: int, start: int, ring: Layout, memory: Memory, packed: Packed, target: Target
) -> Iterator[Call]:
    """`count` rows from `first` on into the ring from `slot` on."""
    op, parameters = block.expand, packed[block.expand.name]
    assert isinstance(parameters, PackedConv)
    x = View(memory.layouts[op.inputs[0]], memory.offsets[op.inputs[0]])
    # One row, as a run of them may be as short as that. The groups count filters from the layer's first one.
    line = View(dataclasses.replace(ring, shape=ring.shape._replace(height=1)), place - start)
    for group in parameters.groups:
        if (part := _blocks_between(group, start, start + block.chunk)) is None:
            continue
        call = conv_call(op, parameters, part, x=x, y=line, residual=None, target=target, recut=False)
        yield call.replaced(
            x=_moved(call, "x", "first", op.stride[0] * x.layout.row_stride),
            y=_moved(call, "y", "slot", ring.row_stride),
            rows=Variable("count"),
            band=block.span,
        )


def _blocks_between(group: Group, start: int, end: int) -> Group | None:
    """The blocks whose filters lie in start..end, which is a whole number of them; None if there are none."""
    first = max(0, (start - group.first_filter) // group.height)
    last = min(len(group.kept), max(0, (end - group.first_filter) // group.height))
    if first >= last:
        return None
    return dataclasses.replace(
        group,
        first_filter=group.first_filter + first * group.height,
        kept=group.kept[first:last],
        pointers=group.pointers + first,
    )


def _depthwise(
    block: FusedBlock, place: int, start: int, channels: int, ring: Layout, band: View, packed: Packed, target: Target
) -> Call:
    op, parameters = block.depthwise, packed[block.depthwise.name]
    assert isinstance(parameters, PackedDepthwise)
    width, pixel = band.layout.shape.width, band.layout.pixel_stride
    tiling = depthwise_tiling(block.rows, width, kernel=op.kernel, stride=op.stride, target=target)
    spec = RingDepthwiseKernel(
        kernel=op.kernel,
        stride=op.stride,
        dilation=op.dilation,
        tile_rows=tiling.tile_rows,
        tile_columns=tiling.tile_columns,
        pixel_stride=block.chunk,
        activation=op.activation,
    )
    return Call(
        spec,
        {
            "x": Place("arena", place),
            "y": band.at(channel=start),
            "weights": Place("parameters", parameters.weights + start),
            "bias": Place("parameters", parameters.bias + start),
            "lines": Variable(f"lines + row * {op.stride[0]}"),
            "rows": tiling.rows,
            "columns": tiling.columns,
            "vectors": channels // target.simd_lanes,
            "w_row": pixel,
            "y_row": band.layout.row_stride,
            "y_pixel": pixel,
        },
    )


def _project(op, rows: int, band: View, memory: Memory, packed: Packed, target: Target) -> Iterator[Call]:
    parameters = packed[op.name]
    assert isinstance(parameters, PackedConv)

    def rows_of(name: str) -> View:
        layout = memory.layouts[name]
        return View(dataclasses.replace(layout, shape=layout.shape._replace(height=rows)), memory.offsets[name])

    y, residual = rows_of(op.name), rows_of(op.inputs[1]) if len(op.inputs) == 2 else None
    for group in parameters.groups:
        call = conv_call(op, parameters, group, x=band, y=y, residual=residual, target=target)
        yield call.replaced(
            y=_moved(call, "y", "row", y.layout.row_stride),
            residual=_moved(call, "residual", "row", (residual or y).layout.row_stride),
        )


def _moved(call: Call, name: str, variable: str, stride: int) -> Place:
    place = call.arguments[name]
    assert isinstance(place, Place)
    return dataclasses.replace(place, moves=((variable, stride),))
