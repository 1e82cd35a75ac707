"""The order of loops, by the bytes that it moves."""

from __future__ import annotations

import math

import pytest

from device_farm.compiler import AVX512, NEON, Target
from device_farm.compiler.ordering import Order, Plan, Work, cost, loop_order, moved_bytes, plan
from device_farm.compiler.tiling import Tiling, conv_tiling

LATE = (512, 512, 7)  # channels, filters, pixels of ResNet's last 3x3 layers


def work(channels: int, filters: int, pixels: int, *, kernel: int = 3, target: Target = NEON, height: int = 8) -> Work:
    tiling = conv_tiling(pixels, pixels, flat=False, vectors=2, target=target, pixels=8)
    weights = filters * channels * kernel**2 * 4
    return Work(
        tiling, stride=(1, 1), reach=(kernel - 1, kernel - 1), pixel_floats=channels,
        blocks=math.ceil(filters / height), block_filters=height, weight_bytes=weights + weights // height,
    )  # fmt: skip


def test_late_layers_read_their_weights_once() -> None:
    """Row by row, 9 MB of weights would come from memory seven times: 68 MB against 11."""
    made = work(*LATE)
    order = loop_order(made, NEON)
    chosen = moved_bytes(made, order, NEON.far_bytes)
    by_row = moved_bytes(made, Order(1, 1), NEON.far_bytes)
    assert chosen < 12e6 < 60e6 < by_row


def test_small_blocks_keep_a_tile_near_for_all_of_them() -> None:
    made = work(128, 256, 28, kernel=1, target=AVX512)
    order = loop_order(made, AVX512)
    assert order.band * order.strip * made.tiling.pixels <= 64
    everything = Order(made.tiling.rows, made.tiling.columns)
    assert moved_bytes(made, order, AVX512.near_bytes) < moved_bytes(made, everything, AVX512.near_bytes) / 2


@pytest.mark.parametrize("layer", [(16, 32, 5), (64, 64, 56), (320, 1280, 7), LATE])
@pytest.mark.parametrize("target", [NEON, AVX512], ids=lambda target: target.name)
def test_the_order_covers_the_image_and_nothing_is_cheaper(layer: tuple[int, int, int], target: Target) -> None:
    made = work(*layer, target=target)
    order = loop_order(made, target)
    rows = math.ceil(made.tiling.rows / made.tiling.tile_rows)
    columns = math.ceil(made.tiling.columns / made.tiling.tile_columns)
    assert 1 <= order.band <= rows
    assert 1 <= order.strip <= columns
    for other in (Order(1, 1), Order(rows, columns), Order(1, columns), Order(rows, 1)):
        assert cost(made, order, target) <= cost(made, other, target)


def test_what_fits_the_cache_is_read_once() -> None:
    made = work(8, 8, 8)
    least = 4 * 10 * 10 * 8 + made.weight_bytes + 4 * 8 * 8 * 8
    assert moved_bytes(made, Order(1, 1), 1 << 30) >= least
    assert moved_bytes(made, Order(made.tiling.rows, made.tiling.columns), 1 << 30) == least


def test_a_smaller_tile_is_taken_where_the_input_of_a_large_one_does_not_stay() -> None:
    narrow, wide = Tiling(1, 784, 1, 28), Tiling(1, 784, 1, 8)

    def chosen(channels: int) -> Plan:
        whole = Work(narrow, (1, 1), (0, 0), channels, 128, 8, 128 * channels // 5 * 36)
        return plan((narrow, wide), whole, AVX512)

    assert chosen(64).tiling == narrow
    assert chosen(512).tiling == wide
