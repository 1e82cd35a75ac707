"""Parts of a call do what the call does, tile by tile, once: the kernels' loops spelled out over addresses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_farm.compiler.cutting import cuttable, overlaps
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import (
    Activation,
    Add,
    BlockSparsity,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Padding,
    Pool2d,
    PoolKind,
    Shape,
    ShuffleChannels,
    Softmax,
)
from device_farm.compiler.kernels.spec import (
    ConvKernel,
    DepthwiseKernel,
    PlanarKernel,
    PlanesKernel,
    PoolKernel,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.steps import Call, Place, Step, Table
from device_farm.compiler.target import AVX512, NEON, TARGETS, Target

Work = tuple[object, ...]


def starts(extent: int, tile: int) -> list[int]:
    return [min(first, extent - tile) for first in range(0, extent, tile)]


def work(call: Call, target: Target) -> Iterator[Work]:
    """Every step of the kernel's loops, as the addresses that it works on."""
    at = {name: value.offset for name, value in call.arguments.items() if isinstance(value, Place)}
    n = {name: value for name, value in call.arguments.items() if isinstance(value, int)}
    lanes = target.simd_lanes
    match call.spec:
        case ConvKernel() as spec:
            assert n["rows"] >= spec.tile_rows and n["columns"] >= spec.tile_columns
            tiles = itertools.product(starts(n["rows"], spec.tile_rows), starts(n["columns"], spec.tile_columns))
            for (r, c), block in itertools.product(tiles, range(n["blocks"])):
                filters = block * spec.vectors * spec.vector_lanes
                yield (
                    call.spec,
                    at["x"] + r * n["x_row"] + c * spec.pixel_stride,
                    at["y"] + r * n["y_row"] + c * n["y_pixel"] + filters,
                    at["residual"] + r * n["r_row"] + c * n["r_pixel"] + filters if spec.residual else None,
                    at["bias"] + filters, at["weights"], at["taps"], at["pointers"] + block, call.block_taps[block],
                )  # fmt: skip
        case PlanesKernel():
            for v in range(n["vectors"]):
                yield at["x"] + v * lanes, at["y"] + v * lanes * n["plane"], n["groups"]
        case PlanarKernel() as spec:
            for tile, block in itertools.product(range(n["pixels"] // 49), range(n["blocks"])):
                places: list[object] = [at["x"] + tile * n["x_tile"]]
                for name, tiled in (("y", spec.y_tiled), ("residual", spec.r_tiled)):
                    begin, table = at[name] + tile * n[f"{name[0]}_tile"], call.arguments["targets"]
                    assert isinstance(table, Table)
                    if tiled:
                        places += [begin + block * 8 * 48, begin + n[f"{name[0]}_singles"] + block * 8]
                    else:
                        places += [begin + block * 8, table.numbers[table.first + tile * 49 :][:49]]
                yield (
                    spec, *places, at["bias"] + block * 8, at["weights"], at["taps"], at["pointers"] + block,
                    call.block_taps[block],
                )  # fmt: skip
        case DepthwiseKernel() as spec:
            assert n["rows"] >= spec.tile_rows
            for r in starts(n["rows"], spec.tile_rows):
                yield (
                    spec, at["x"] + r * spec.stride[0] * n["x_row"], at["y"] + r * n["y_row"], at["weights"],
                    at["bias"], n["columns"],
                )  # fmt: skip
        case PoolKernel():
            for r, v in itertools.product(range(n["rows"]), range(n["vectors"])):
                yield (
                    at["x"] + v * lanes, at["y"] + r * n["y_row"] + v * lanes, r * n["stride_y"] - n["top"],
                    n["height"], n["columns"],
                )  # fmt: skip
        case WinogradInput():
            for index in range(n["tiles"]):
                yield at["x"], n["first"] + index, at["v"] + index * n["v_tile"], n["vectors"]
        case WinogradProduct() as spec:
            plane_floats = n["blocks"] * n["channels"] * spec.vectors * lanes
            for plane in range(n["planes"]):
                yield (
                    spec, at["v"] + plane * n["v_plane"], at["m"] + plane * n["m_plane"],
                    at["weights"] + plane * plane_floats, n["tiles"],
                )  # fmt: skip
        case WinogradOutput() as spec:
            for index, v in itertools.product(range(n["tiles"]), range(n["vectors"])):
                yield (
                    spec, n["first"] + index, at["m"] + index * n["m_tile"] + v * lanes,
                    *(at[name] + v * lanes for name in ("y", "bias", "residual")),
                )  # fmt: skip
        case _:
            strides = {name: n[f"{name}_row"] for name in ("a", "b", "x", "y") if name in at}
            fixed = {name: value for name, value in n.items() if name != "rows"}
            for r in range(n["rows"]):
                yield (call.spec, *(at[name] + r * stride for name, stride in strides.items()), *sorted(fixed.items()))


def steps_of(graph: Graph, target: Target, *, fuse: bool = False) -> tuple[Step, ...]:
    memory = plan_memory(
        graph,
        target,
        fused_blocks(graph) if fuse else (),
        living_blocks(graph, target, weights=None, seed=0),
        threads=4,
    )
    packed, _ = pack(graph, memory, target=target, weights=None, seed=0)
    return lower(graph, memory, packed, target)


def same(kernel: int) -> Padding:
    return Padding.same(kernel)


NETWORK = Graph(
    (
        Input("x", (), Shape(27, 25, 3)),
        Conv2d("stem", ("x",), filters=40, kernel=(3, 3), stride=(2, 2), padding=same(3)),
        Conv2d("wide", ("stem",), filters=200, activation=Activation.RELU),
        DepthwiseConv2d("dw", ("wide",), padding=same(3)),
        Conv2d("sparse", ("dw", "stem"), filters=40, sparsity=BlockSparsity(8, (9, 0, 200, 3, 77))),
        Conv2d("winograd", ("sparse",), filters=64, kernel=(3, 3), padding=same(3)),
        Pool2d("max", ("winograd",), pool=PoolKind.MAX, kernel=(3, 3), stride=(2, 2), padding=same(3)),
        Conv2d("second", ("max",), filters=64, kernel=(3, 3), padding=same(3)),
        Add("sum", ("max", "second"), activation=Activation.RELU),
        Concat("joined", ("sum", "max")),
        ShuffleChannels("shuffled", ("joined",), groups=4),
        Pool2d("mean", ("shuffled",), kernel=(7, 7)),
        Conv2d("head", ("mean",), filters=70),
        Softmax("softmax", ("head",)),
    )
)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
@given(data=st.data())
@settings(max_examples=60)
def test_parts_do_every_piece_of_work_once(target: Target, data: st.DataObject) -> None:
    calls = [call for step in STEPS[target.name] for call in step.calls]
    call = data.draw(st.sampled_from(calls))
    whole = Counter(work(call, target))
    for way in cuttable(call, target):
        assert way.cost > 0
        limits = sorted(data.draw(st.lists(st.integers(0, len(way.costs)), max_size=5)))
        pieces: Sequence[Call] = [
            piece
            for first, last in itertools.pairwise([0, *limits, len(way.costs)])
            if first < last
            for piece in way.piece(first, last)
        ]
        assert Counter(item for piece in pieces for item in work(piece, target)) == whole
        assert {piece.spec for piece in pieces} == {call.spec}


STEPS = {target.name: steps_of(NETWORK, target) for target in TARGETS.values()}
LOW = BlockSparsity(8, (9, 0, 25, 3, 64, 7, 12, 30))
STEPS[AVX512.name] += steps_of(
    Graph(
        (
            Input("x", (), Shape(14, 14, 100)),
            Conv2d("a", ("x",), filters=64, sparsity=LOW),
            Conv2d("b", ("a",), filters=64, sparsity=LOW),
            Conv2d("c", ("b", "a"), filters=64, sparsity=LOW),
            Add("sum", ("c", "b")),
            Conv2d("d", ("sum", "c"), filters=64, sparsity=LOW),
        )
    ),
    AVX512,
)


def test_all_kinds_of_kernels_were_cut() -> None:
    kinds = {type(call.spec).__name__ for step in STEPS[AVX512.name] for call in step.calls}
    assert {"ConvKernel", "DepthwiseKernel", "PoolKernel", "WinogradProduct", "ElementwiseKernel"} <= kinds
    assert {"ResizeKernel", "ShuffleKernel", "SoftmaxKernel", "PlanesKernel"} <= kinds
    specs = [call.spec for step in STEPS[AVX512.name] for call in step.calls]
    kept = {(spec.x_tiled, spec.y_tiled, spec.r_tiled) for spec in specs if isinstance(spec, PlanarKernel)}
    assert {(False, True, True), (True, True, True), (True, False, True)} <= kept


def test_ways_of_a_call_cost_the_same() -> None:
    for target in (AVX512, NEON):
        for step in STEPS[target.name]:
            for call in step.calls:
                costs = [way.cost for way in cuttable(call, target)]
                assert max(costs) == pytest.approx(min(costs))


def test_blocks_with_more_taps_cost_more() -> None:
    (call,) = [call for step in STEPS[NEON.name] if step.op.name == "sparse" for call in step.calls]
    by_filters = next(way for way in cuttable(call, NEON) if len(way.costs) == len(call.block_taps))
    order = sorted(range(len(call.block_taps)), key=call.block_taps.__getitem__)
    assert sorted(order, key=lambda block: by_filters.costs[block]) == order
    assert by_filters.costs[2] > 2 * by_filters.costs[4]


def test_tiles_of_winograd_that_overlap_stay_in_order() -> None:
    """Their common pixels are another sum in each: the last tile must win, whoever computes it."""
    for name, expected in (("winograd", True), ("second", True)):
        (step,) = [step for step in STEPS[AVX512.name] if step.op.name == name]
        outputs = [call for call in step.calls if isinstance(call.spec, WinogradOutput)]
        assert all(overlaps(call) is expected for call in outputs)
        for call in outputs:
            (way,) = cuttable(call, AVX512)
            assert all(piece.arguments["tiles"] == call.arguments["tiles"] for piece in way.piece(0, 1))
