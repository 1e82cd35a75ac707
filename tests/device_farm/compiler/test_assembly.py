"""The text of the inner loops: sums stay in registers, and loads are as many as designed. Needs nothing but TVM."""

from __future__ import annotations

import math
from typing import Any

import pytest

from device_farm.compiler import AVX2, AVX512, NEON, Target
from device_farm.compiler.assembly import InnerLoop, inner_loops, kernel_assembly
from device_farm.compiler.graph import Activation
from device_farm.compiler.kernels.spec import ConvKernel, PlanarKernel
from device_farm.compiler.sparsity import QUAD_CHANNELS
from device_farm.compiler.target import PlanarTile, RegisterTile
from device_farm.compiler.tiling import conv_pixels

TILES = [(target, tile) for target in (NEON, AVX512, AVX2) for tile in target.tiles]


def loops_of(target: Target, tile: RegisterTile, tap_channels: int, **changed: Any) -> tuple[InnerLoop, ...]:
    fields: dict[str, Any] = {
        "tile_rows": 1, "tile_columns": conv_pixels(tile, tap_channels, target), "pixel_stride": 64, "line_stride": 0,
        "tap_unroll": 1, "activation": Activation.RELU6, "residual": True,
    }  # fmt: skip
    spec = ConvKernel(
        vectors=tile.vectors,
        vector_lanes=tile.lanes,
        tap_channels=tap_channels,
        **(fields | changed),
    )
    return inner_loops(kernel_assembly(spec, target))


def check_registers(loops: tuple[InnerLoop, ...]) -> None:
    assert loops
    for loop in loops:
        assert loop.stack_accesses == (), "an accumulator, or an address, lives on the stack"
        assert loop.vector_stores == ()


@pytest.mark.parametrize(("target", "tile"), TILES, ids=lambda value: getattr(value, "name", str(value)))
@pytest.mark.parametrize("pixel_stride", [3, 528, 2064])
def test_the_largest_tiles_stay_in_registers(target: Target, tile: RegisterTile, pixel_stride: int) -> None:
    for tap_channels in (1, QUAD_CHANNELS) if target.quad_pixels else (1,):
        check_registers(loops_of(target, tile, tap_channels, pixel_stride=pixel_stride))


@pytest.mark.parametrize(("target", "tile"), TILES, ids=lambda value: getattr(value, "name", str(value)))
def test_tiles_of_several_rows_stay_in_registers(target: Target, tile: RegisterTile) -> None:
    for tap_channels in (1, QUAD_CHANNELS) if target.quad_pixels else (1,):
        columns = conv_pixels(tile, tap_channels, target) // 2
        check_registers(
            loops_of(target, tile, tap_channels, tile_rows=2, tile_columns=columns, line_stride=30 * 64, residual=False)
        )


@pytest.mark.parametrize("tile", AVX512.planar_tiles, ids=str)
def test_vectors_of_pixels_take_weights_from_memory(tile: PlanarTile) -> None:
    """A load for each vector of pixels and for a single one: nothing else."""
    spec = PlanarKernel(tile.vectors, tile.singles, Activation.RELU6, residual=True)
    loops = [loop for loop in inner_loops(kernel_assembly(spec, AVX512)) if loop.multiply_adds]
    check_registers(tuple(loops))
    (loop,) = loops
    assert loop.multiply_adds == 8 * tile.vectors + tile.singles
    assert sum("1to16" in line for line in loop.instructions) == 8 * tile.vectors
    assert (
        sum(line.startswith(("vmov", "vbroadcast", "vperm")) for line in loop.instructions)
        == tile.vectors + tile.singles
    )


def test_planes_that_are_kept_are_read_and_written_in_whole_vectors() -> None:
    tile = AVX512.planar_tiles[0]
    kept = dict.fromkeys(("x_tiled", "y_tiled", "r_tiled"), True)
    text = kernel_assembly(PlanarKernel(tile.vectors, tile.singles, Activation.RELU6, residual=True, **kept), AVX512)
    (loop,) = [loop for loop in inner_loops(text) if loop.multiply_adds]
    check_registers((loop,))
    assert loop.multiply_adds == 8 * tile.vectors + tile.singles
    assert sum("1to16" in line for line in loop.instructions) == 8 * tile.vectors
    assert not any(word in text for word in ("vperm", "vshuf", "vunpck")), "nothing is transposed"
    stored = [line for line in text.splitlines() if line.strip().startswith("vmovup") and line.rstrip().endswith(")")]
    assert sum("%zmm" in line for line in stored) == 8 * tile.vectors


def test_blocks_of_two_vectors_on_avx512_take_every_number_from_memory() -> None:
    (loop,) = loops_of(AVX512, AVX512.tiles[0], 1)
    assert sum("1to16" in line for line in loop.instructions) == loop.multiply_adds == 14
    assert not any(line.startswith("vbroadcast") for line in loop.instructions)


def test_weights_are_prefetched_once_a_tap_and_nothing_is_spilled_for_it() -> None:
    (loop,) = loops_of(AVX512, AVX512.tiles[0], 1, prefetch_weights=True, y_pixel=64)
    check_registers((loop,))
    assert sum(line.startswith("prefetcht0") for line in loop.instructions) == 1


@pytest.mark.parametrize("tile", NEON.tiles, ids=str)
def test_quads_on_neon_load_four_activations_at_once(tile: RegisterTile) -> None:
    pixels = conv_pixels(tile, QUAD_CHANNELS, NEON)
    (loop,) = loops_of(NEON, tile, QUAD_CHANNELS)
    by_element = [line for line in loop.instructions if line.startswith("fmla") and ".s[" in line]
    assert len(by_element) == loop.multiply_adds
    taps = loop.multiply_adds / (QUAD_CHANNELS * tile.vectors * pixels)  # LLVM unrolls the loop over taps
    assert taps == int(taps) >= 1
    weights = QUAD_CHANNELS * tile.vectors
    assert taps * (pixels + weights / 2) <= loop.vector_loads <= taps * (pixels + weights)
    assert not any(line.startswith(("dup", "ld1r", "ins")) for line in loop.instructions)


@pytest.mark.parametrize("tile", NEON.tiles, ids=str)
def test_single_taps_on_neon_load_one_activation_a_pixel(tile: RegisterTile) -> None:
    (loop,) = loops_of(NEON, tile, 1)
    taps = loop.multiply_adds / (tile.vectors * tile.pixels)
    assert taps == int(taps) >= 1
    assert math.ceil(taps * (tile.pixels + tile.vectors / 2)) <= loop.vector_loads
    assert loop.vector_loads <= taps * (tile.pixels + tile.vectors)


def test_narrow_blocks_on_avx512_multiply_by_operands_in_memory() -> None:
    for tile in AVX512.small_tiles:
        (loop,) = loops_of(AVX512, tile, 1)
        assert loop.multiply_adds == tile.pixels
        assert loop.vector_loads == tile.pixels + 1
        register = {16: "%zmm", 8: "%ymm"}[tile.lanes]
        assert sum(register in line and line.startswith("vfmadd") for line in loop.instructions) == tile.pixels


def test_a_spill_is_found() -> None:
    """A tile larger than the registers must not pass: or this file proves nothing."""
    tile = RegisterTile(2, 4, 20)
    loops = loops_of(NEON, tile, 1)
    assert any(loop.stack_accesses for loop in loops)


def test_loops_are_read_from_the_text() -> None:
    text = """
.LBB0_1:                                // =>This Loop Header
\tldr\tq0, [x1]
.LBB0_2:
\tldr\tq1, [sp, #16]                     // 16-byte Folded Reload
\tldp\tq2, q3, [x2], #32
\tfmla\tv4.4s, v2.4s, v1.s[0]
\tstr\tq4, [x3]
\tb.ne\t.LBB0_2
\tcbnz\tx4, .LBB0_1
"""
    (loop,) = inner_loops(text)
    assert len(loop.instructions) == 5
    assert (loop.multiply_adds, loop.vector_loads) == (1, 1)
    assert loop.stack_accesses == ("ldr q1, [sp, #16]",)
    assert loop.vector_stores == ("str q4, [x3]",)
