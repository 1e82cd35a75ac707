"""Blocks of eight filters with SIMD over pixels: the input as planes, one a channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from device_farm.compiler import AVX512, NEON, Graph, Target, host_target, planar
from device_farm.compiler.graph import Activation, BlockSparsity, Conv2d, Input, Op, Padding, Shape
from device_farm.compiler.kernels.spec import PlanarKernel
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.planar import PlanarImage, planar_images
from device_farm.compiler.steps import Step
from device_farm.compiler.testing import Check, chain, random_weights

AVX512_ONLY = pytest.mark.skipif(host_target() != AVX512, reason="this machine has no AVX-512")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it does not pay: tests are small."""
    monkeypatch.setattr(planar, "half_cycles", lambda *_: float("inf"))


def steps(graph: Graph, target: Target) -> tuple[Step, ...]:
    memory = plan_memory(graph, target)
    packed, _ = pack(graph, memory, target=target, weights=None, seed=1)
    return lower(graph, memory, packed, target)


def is_planar(graph: Graph, target: Target = AVX512) -> bool:
    return any(isinstance(call.spec, PlanarKernel) for step in steps(graph, target) for call in step.calls)


def taps(op: Conv2d, channels: int) -> BlockSparsity:
    """About half of the taps in blocks of eight, one of which has none."""
    every = channels // op.groups * op.kernel[0] * op.kernel[1]
    counts = [every // 2 + block % 3 for block in range(-(-op.filters // 8))]
    counts[1] = 0
    return BlockSparsity(8, tuple(counts))


def layer(channels: int, **fields: object) -> Conv2d:
    op = Conv2d("conv", (), **({"filters": 120, "activation": Activation.RELU} | fields))  # type: ignore[arg-type]
    return dataclasses.replace(op, sparsity=taps(op, channels))


LAYERS = {
    "pixels of a flat image": ((6, 6, 16), layer(16)),
    "one tile": ((7, 7, 24), layer(24, activation=Activation.SWISH)),
    "a last tile that is shifted back": ((9, 9, 24), layer(24, activation=Activation.HARD_SIGMOID)),
    "rows of windows": ((8, 5, 16), layer(16, kernel=(3, 3), padding=Padding.same(3))),
    "rows that share a column of zeros": ((9, 30, 16), layer(16, kernel=(3, 3), padding=Padding.same(3))),
    "no padding": ((9, 30, 16), layer(16, kernel=(3, 3))),
    "padding on one side": ((9, 20, 16), layer(16, kernel=(3, 3), padding=Padding(0, 1, 2, 0))),
    "a stride": ((13, 11, 16), layer(16, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3))),
    "a stride of single pixels": ((13, 12, 16), layer(16, stride=(2, 2))),
    "a stride of columns": ((5, 12, 16), layer(16, kernel=(1, 3), stride=(1, 2), padding=Padding(0, 1, 0, 1))),
    "a stride of rows": ((12, 12, 16), layer(16, kernel=(3, 1), stride=(3, 1), padding=Padding(1, 0, 1, 0))),
    "a dilation": ((12, 9, 16), layer(16, kernel=(3, 3), dilation=(2, 3), padding=Padding(2, 3, 2, 3))),
    "a border around single pixels": ((4, 6, 16), layer(16, padding=Padding(1, 2, 0, 1))),
    "groups of channels": ((6, 5, 32), layer(32, kernel=(3, 3), padding=Padding.same(3), groups=2, filters=80)),
    "filters that fill no block": ((6, 5, 20), layer(20, filters=123, activation=Activation.HARD_SWISH)),
    "pixels a way of the cache apart": ((4, 4, 256), layer(256)),
    "several bands": ((30, 31, 64), layer(64, kernel=(3, 3), padding=Padding.same(3))),
}
WAYS = {"apart": lambda image: image.pitch == image.columns, "shared": lambda image: image.pitch > image.columns}


@AVX512_ONLY
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", LAYERS)
def test_planes_give_what_the_layer_computes(name: str, check: Check) -> None:
    shape, op = LAYERS[name]
    graph = chain(shape, op)
    assert is_planar(graph)
    assert check(graph, target=AVX512).kept_macs == graph.kept_macs


@AVX512_ONLY
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [13, 16])
def test_both_ways_and_several_bands(way: str, size: int, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(*arguments: object) -> Iterator[PlanarImage]:
        images = planar_images(*arguments)  # type: ignore[arg-type]
        return (image for image in images if WAYS[way](image) and len(image.starts) > 1)

    monkeypatch.setattr(planar, "planar_images", some)
    graph = residual_graph(3, size)
    assert all(is_planar(graph) for graph in (graph, chain((size, size, 64), layer(64, kernel=(3, 3)))))
    check(graph, target=AVX512)
    check(graph, target=AVX512, weights=random_weights(graph, seed=3, density=0.4))


def residual_graph(kernel: int, size: int = 9) -> Graph:
    ops: list[Op] = [Input("x", (), Shape(size, 8, 64))]
    for name, inputs in (("a", ("x",)), ("b", ("a", "x")), ("c", ("b", "a"))):
        op = layer(64, filters=64, kernel=(kernel, kernel), padding=Padding.same(kernel))
        ops.append(dataclasses.replace(op, name=name, inputs=inputs))
    return Graph(tuple(ops))


@AVX512_ONLY
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kernel", [1, 3])
def test_residuals(kernel: int, check: Check) -> None:
    graph = residual_graph(kernel)
    assert is_planar(graph)
    check(graph, target=AVX512)
    assert check(graph, target=AVX512, weights=random_weights(graph, seed=3, density=0.4)).kept_macs < graph.macs


def test_planes_are_for_layers_that_they_make_faster() -> None:
    def chosen(channels: int, filters: int, rate: float, *, height: int = 8, target: Target = AVX512) -> bool:
        blocks = BlockSparsity(height, (round(channels / rate),) * (filters // height))
        return is_planar(chain((14, 14, channels), Conv2d("conv", (), filters=filters, sparsity=blocks)), target)

    assert chosen(256, 1024, 2) and chosen(256, 1024, 10) and chosen(1024, 256, 10)
    assert not chosen(384, 24, 10), "the planes cost more than they save"
    assert not chosen(256, 1024, 2, height=16) and not chosen(256, 1024, 2, height=32)
    assert not chosen(256, 1024, 2, target=NEON)


@pytest.mark.parametrize("seed", range(5))
def test_pixels_of_a_window_follow_one_another_in_a_plane(seed: int) -> None:
    """For any layer, every way and every band: vectors of pixels read what their windows see, and write all pixels."""
    random = np.random.default_rng(seed)
    for _ in range(10):
        (kh, kw), (sy, sx), (dy, dx) = random.integers(1, 4, (3, 2)).tolist()
        height, width = random.integers(10, 18, 2).tolist()
        padding = Padding(*random.integers(0, 3, 4).tolist())
        op = Conv2d("conv", (), 16, (kh, kw), (sy, sx), padding, (dy, dx))
        graph = chain((height, width, 16), op)
        memory = plan_memory(graph, AVX512)
        x, y = memory.layouts["x"], memory.layouts["conv"]
        source = random.random(x.elements).reshape(x.rows, -1, x.pixel_stride)
        top, left, bottom, right = x.border
        for border in (source[:top], source[x.rows - bottom :], source[:, :left], source[:, source.shape[1] - right :]):
            border[:] = 0
        first = x.offset(-padding.top, -padding.left)
        for image in planar_images(op, x, y, AVX512):
            done = np.zeros(y.elements, int)
            for start in image.starts:
                band = first + start * sy * x.row_stride
                plane = source.ravel()[band + np.array(image.sources(x))]
                targets = np.array(image.targets(y))
                for position, begin in enumerate(image.positions):
                    down, across = divmod(position, kw)
                    for pixel in range(image.pixels):
                        row, column = divmod(pixel, image.pitch)
                        if column < image.columns:
                            window = (row * sy + down * dy) * x.row_stride
                            window += (column * sx + across * dx) * x.pixel_stride
                            assert plane[begin + pixel] == source.ravel()[band + window]
                            done[targets[pixel] + start * y.row_stride] += 1
            assert (done[y.offset(0, 0) - y.offset(0, 0) :].reshape(-1) > 0).sum() == y.shape.height * y.shape.width
