"""Graph -> steps: which kernels run, on which arguments. Pure: nothing is generated or written here."""

from __future__ import annotations

from dataclasses import dataclass

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
    ConvKernel,
    DepthwiseKernel,
    ElementwiseKernel,
    KernelSpec,
    PoolKernel,
    ResizeKernel,
    ScatterKernel,
)
from device_farm.compiler.layout import Layout, Memory
from device_farm.compiler.packing import Packed, PackedConv, PackedDepthwise, PackedScatter
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import band_tiles, conv_tiling, depthwise_tiling, tap_unroll
from device_farm.errors import UnsupportedOperator


@dataclass(frozen=True)
class Place:
    """A pointer into the arena (floats) or the parameters (words)."""

    area: str  # "arena" or "parameters"
    offset: int


Argument = Place | int | float


@dataclass(frozen=True)
class Call:
    """One call of a kernel; arguments by parameter name."""

    spec: KernelSpec
    arguments: dict[str, Argument]


@dataclass(frozen=True)
class Step:
    """What one operator became."""

    op: Op
    calls: tuple[Call, ...]
    macs: int
    kept_macs: int


def lower(graph: Graph, memory: Memory, packed: Packed, target: Target) -> tuple[Step, ...]:
    """Steps in the order of the graph. Raises UnsupportedOperator."""
    return tuple(_lower(op, graph, memory, packed, target) for op in graph.ops if not isinstance(op, Input))


def _lower(op: Op, graph: Graph, memory: Memory, packed: Packed, target: Target) -> Step:
    shapes, lanes = graph.input_shapes(op), target.simd_lanes
    inputs, y = [memory.layouts[name] for name in op.inputs], memory.layouts[op.name]

    def at(name: str, row: int = 0, column: int = 0, channel: int = 0) -> Place:
        return Place("arena", memory.offsets[name] + memory.layouts[name].offset(row, column) + channel)

    macs = kept_macs = op.macs(*shapes)
    out = y.shape
    if isinstance(op, Conv2d):
        parameters = packed[op.name]
        assert isinstance(parameters, PackedConv)
        kept_macs = parameters.kept_macs(op.filters, out.height * out.width)
        calls = _conv(op, inputs, y, parameters, memory, target)
    elif isinstance(op, DepthwiseConv2d):
        depthwise = packed[op.name]
        assert isinstance(depthwise, PackedDepthwise)
        tiling = depthwise_tiling(out.height, out.width, kernel=op.kernel, stride=op.stride, target=target)
        spec: KernelSpec = DepthwiseKernel(
            op.kernel, op.stride, op.dilation, tiling.tile_rows, tiling.tile_columns, y.pixel_stride, op.activation
        )
        calls = (
            Call(
                spec,
                {
                    "x": at(op.inputs[0], -op.padding.top, -op.padding.left),
                    "y": at(op.name),
                    "weights": Place("parameters", depthwise.weights),
                    "bias": Place("parameters", depthwise.bias),
                    "rows": out.height,
                    "columns": out.width,
                    "x_row": inputs[0].row_stride,
                    "y_row": y.row_stride,
                },
            ),
        )
    elif isinstance(op, Pool2d):
        calls = (Call(PoolKernel(op.pool), _pool_arguments(op, inputs[0], y, lanes) | _xy(op, at, inputs[0], y)),)
    elif isinstance(op, Add | Activate):
        calls = (
            Call(
                ElementwiseKernel(len(inputs), op.activation),
                {
                    "a": at(op.inputs[0]),
                    "b": at(op.inputs[-1]),
                    "y": at(op.name),
                    "rows": out.height,
                    "vectors": out.width * y.pixel_stride // lanes,
                    "a_row": inputs[0].row_stride,
                    "b_row": inputs[-1].row_stride,
                    "y_row": y.row_stride,
                },
            ),
        )
    elif isinstance(op, ResizeChannels):
        grows = op.channels >= shapes[0].channels
        sizes = {
            "copied": inputs[0].pixel_stride // lanes if grows else op.channels // lanes,
            "tail": 0 if grows else op.channels % lanes,
            "vectors": y.pixel_stride // lanes,
            "rows": out.height,
            "columns": out.width,
        }
        calls = (Call(ResizeKernel(), sizes | _xy(op, at, inputs[0], y)),)
    elif isinstance(op, ScatterChannels):
        scatter = packed[op.name]
        assert isinstance(scatter, PackedScatter)
        sizes = {
            "channels": shapes[0].channels,
            "vectors": y.pixel_stride // lanes,
            "rows": out.height,
            "columns": out.width,
        }
        index = {"index": Place("parameters", scatter.index)}
        calls = (Call(ScatterKernel(), index | sizes | _xy(op, at, inputs[0], y)),)
    else:
        raise UnsupportedOperator(
            f"{op.name}: no kernel for {op.kind!r}; express it by the operators of device_farm.compiler.graph"
        )
    return Step(op, calls, macs, kept_macs)


def _xy(op: Op, at: object, x: Layout, y: Layout) -> dict[str, Argument]:
    assert callable(at)
    return {
        "x": at(op.inputs[0]),
        "y": at(op.name),
        "x_row": x.row_stride,
        "x_pixel": x.pixel_stride,
        "y_row": y.row_stride,
        "y_pixel": y.pixel_stride,
    }


def _pool_arguments(op: Pool2d, x: Layout, y: Layout, lanes: int) -> dict[str, Argument]:
    return {
        "scale": 1.0 / (op.kernel[0] * op.kernel[1]) if op.pool is PoolKind.AVERAGE else 1.0,
        "rows": y.shape.height,
        "columns": y.shape.width,
        "vectors": y.pixel_stride // lanes,
        "height": x.shape.height,
        "width": x.shape.width,
        "window_height": op.kernel[0],
        "window_width": op.kernel[1],
        "stride_y": op.stride[0],
        "stride_x": op.stride[1],
        "top": op.padding.top,
        "left": op.padding.left,
    }


def _conv(
    op: Conv2d, inputs: list[Layout], y: Layout, packed: PackedConv, memory: Memory, target: Target
) -> tuple[Call, ...]:
    x, residual = inputs[0], inputs[1] if len(inputs) == 2 else None
    out, (stride_y, stride_x) = y.shape, op.stride
    window_start = memory.offsets[op.inputs[0]] + x.offset(-op.padding.top, -op.padding.left)
    flat = op.kernel == op.stride == (1, 1) and all(
        layout.contiguous for layout in (x, y, residual) if layout is not None
    )
    calls = []
    for group in packed.groups:
        tiling = conv_tiling(out.height, out.width, flat=flat, vectors=group.vectors, target=target)
        reshaped = tiling.columns != out.width  # only where flat
        x_row = tiling.columns * x.pixel_stride if reshaped else stride_y * x.row_stride
        spec = ConvKernel(
            vectors=group.vectors,
            tile_rows=tiling.tile_rows,
            tile_columns=tiling.tile_columns,
            pixel_stride=stride_x * x.pixel_stride if tiling.columns > 1 else 0,
            line_stride=x_row if tiling.tile_rows > 1 else 0,
            tap_unroll=tap_unroll(tiling, group.vectors),
            activation=op.activation,
            residual=residual is not None,
        )
        weights = sum(group.kept) * group.height
        arguments: dict[str, Argument] = {
            "x": Place("arena", window_start),
            "y": Place("arena", memory.offsets[op.name] + y.offset(0, 0) + group.first_filter),
            "weights": Place("parameters", group.weights),
            "bias": Place("parameters", packed.bias + group.first_filter),
            "residual": Place("parameters", 0),
            "taps": Place("parameters", group.taps),
            "pointers": Place("parameters", group.pointers),
            "blocks": len(group.kept),
            "band": band_tiles(
                tiling, in_floats=x.elements, out_floats=out.height * out.width * y.pixel_stride, weights=weights
            ),
            "rows": tiling.rows,
            "columns": tiling.columns,
            "x_row": x_row,
            "y_row": tiling.columns * y.pixel_stride if reshaped else y.row_stride,
            "y_pixel": y.pixel_stride,
            "r_row": 0,
            "r_pixel": 0,
        }
        if residual is not None:
            origin = memory.offsets[op.inputs[1]] + residual.offset(0, 0)
            arguments |= {
                "residual": Place("arena", origin + group.first_filter),
                "r_row": tiling.columns * residual.pixel_stride if reshaped else residual.row_stride,
                "r_pixel": residual.pixel_stride,
            }
        calls.append(Call(spec, arguments))
    return tuple(calls)
