"""Every operator, in the shapes that break kernels: compiled, run, and compared with torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_farm.compiler import Target
from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Padding,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
    Shape,
)
from device_farm.compiler.testing import Check, chain

RELU, RELU6, NONE = Activation.RELU, Activation.RELU6, Activation.NONE


def conv(filters: int, kernel: int = 1, stride: int = 1, **options: Any) -> Conv2d:
    settings: dict[str, Any] = {"padding": Padding.same(kernel), "activation": RELU} | options
    return Conv2d("conv", (), filters=filters, kernel=(kernel,) * 2, stride=(stride,) * 2, **settings)


CONVOLUTIONS = [
    ((16, 16, 1), conv(32, 3)),
    ((16, 16, 3), conv(8, 7, 2)),
    ((7, 7, 40), conv(96)),
    ((13, 11, 24), conv(48, 3, 2, activation=RELU6)),
    ((5, 9, 17), conv(33, 5, padding=Padding())),
    ((4, 4, 64), conv(10, 1, activation=NONE)),
    ((3, 3, 16), conv(100, 3)),
    ((1, 1, 50), conv(10)),
    ((1, 1, 128), conv(1000, activation=NONE)),
    ((6, 6, 20), conv(24, 6, padding=Padding())),
    ((17, 23, 8), conv(40, 3, dilation=(2, 2), padding=Padding.same(5))),
    ((9, 9, 12), conv(16, 3, padding=Padding(0, 1, 2, 0))),
    ((12, 10, 6), Conv2d("conv", (), filters=20, kernel=(1, 4), stride=(2, 1), padding=Padding(0, 2, 0, 1))),
    ((10, 10, 4), conv(1, 2, 3, padding=Padding())),
    ((29, 1, 7), conv(64)),
]


@pytest.mark.parametrize(("shape", "op"), CONVOLUTIONS, ids=str)
def test_convolutions(shape: tuple[int, int, int], op: Conv2d, native: Target, check: Check) -> None:
    check(chain(shape, op), target=native)


DEPTHWISE = [
    ((16, 16, 40), DepthwiseConv2d("dw", (), padding=Padding.same(3), activation=RELU6)),
    ((7, 7, 96), DepthwiseConv2d("dw", (), padding=Padding.same(3), stride=(2, 2))),
    ((9, 12, 5), DepthwiseConv2d("dw", (), kernel=(5, 5), padding=Padding.same(5), activation=RELU)),
    ((14, 14, 33), DepthwiseConv2d("dw", (), kernel=(5, 5), padding=Padding.same(5), stride=(2, 2))),
    ((8, 8, 16), DepthwiseConv2d("dw", (), kernel=(7, 7), padding=Padding.same(7))),
    ((11, 11, 20), DepthwiseConv2d("dw", (), dilation=(2, 3), padding=Padding(2, 3, 2, 3))),
    ((3, 4, 32), DepthwiseConv2d("dw", (), kernel=(2, 1))),
    ((1, 1, 24), DepthwiseConv2d("dw", (), kernel=(1, 1))),
]


@pytest.mark.parametrize(("shape", "op"), DEPTHWISE, ids=str)
def test_depthwise_convolutions(shape: tuple[int, int, int], op: DepthwiseConv2d, native: Target, check: Check) -> None:
    check(chain(shape, op), target=native)


POOLS = [
    ((8, 8, 24), Pool2d("pool", (), kernel=(8, 8))),
    ((9, 7, 40), Pool2d("pool", (), kernel=(3, 3), stride=(2, 2), padding=Padding.same(3))),
    ((9, 7, 40), Pool2d("pool", (), pool=PoolKind.MAX, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3))),
    ((6, 10, 3), Pool2d("pool", (), pool=PoolKind.MAX, kernel=(2, 3), stride=(1, 2))),
    ((5, 5, 17), Pool2d("pool", (), kernel=(2, 2), stride=(2, 2), padding=Padding(0, 1, 1, 0))),
]


@pytest.mark.parametrize(("shape", "op"), POOLS, ids=str)
def test_pooling(shape: tuple[int, int, int], op: Pool2d, native: Target, check: Check) -> None:
    check(chain(shape, op), target=native)


def test_maximum_of_negative_values_ignores_the_padding(native: Target, check: Check) -> None:
    pool = Pool2d("pool", (), pool=PoolKind.MAX, kernel=(3, 3), stride=(1, 1), padding=Padding.same(3))
    graph = chain((4, 4, 8), Conv2d("conv", (), filters=8), pool)
    weights = {"conv.weight": _zeros(8, 8, 1, 1), "conv.bias": _zeros(8) - 1.0}
    artifact = check(graph, target=native, weights=weights)
    assert set(artifact.expected_output) == {-1.0}


def _zeros(*shape: int) -> NDArray[np.float32]:
    import numpy as np

    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("channels", [1, 7, 16, 30, 32, 64, 90])
def test_resizing_channels(channels: int, native: Target, check: Check) -> None:
    cut = ResizeChannels("resized", (), channels=channels)
    # What is beyond the last channel must be zero again for the one that fills up.
    check(chain((3, 5, 33), cut, ResizeChannels("wide", (), channels=100)), target=native)


def test_scattering_channels(native: Target, check: Check) -> None:
    check(chain((5, 5, 20), ScatterChannels("scattered", (), channels=41)), target=native)
    check(chain((2, 3, 16), ScatterChannels("same", (), channels=16)), target=native)


@pytest.mark.parametrize("activation", list(Activation))
def test_sums_residuals_and_activations(activation: Activation, native: Target, check: Check) -> None:
    graph = Graph(
        (
            Input("x", (), Shape(9, 9, 3)),
            Conv2d("a", ("x",), filters=40, kernel=(3, 3), padding=Padding.same(3)),
            Conv2d("b", ("a",), filters=40, activation=RELU),
            Conv2d("c", ("b", "a"), filters=40, kernel=(3, 3), padding=Padding.same(3), activation=activation),
            DepthwiseConv2d("d", ("c",), padding=Padding.same(3)),
            Conv2d("e", ("d", "c"), filters=40, activation=activation),
            Add("f", ("e", "a"), activation=activation),
            Activate("g", ("f",), activation=RELU),
            Add("h", ("g", "g")),
        )
    )
    check(graph, target=native)


def test_the_image_itself_as_residual_and_as_output(native: Target, check: Check) -> None:
    graph = Graph(
        (
            Input("x", (), Shape(6, 6, 5)),
            Conv2d("conv", ("x", "x"), filters=5, kernel=(3, 3), padding=Padding.same(3)),
            Add("sum", ("conv", "x")),
        )
    )
    check(graph, target=native)
    check(Graph((Input("x", (), Shape(2, 2, 3)),)), target=native)
