from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from device_farm.compiler.graph import (
    Activation,
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Multiply,
    Padding,
    Pool2d,
    PoolKind,
    Shape,
)

SAME = Padding.same(3)
EVERY_PEER = Graph(
    (
        Input("input", (), Shape(15, 14, 3)),
        Conv2d("stem", ("input",), 8, (3, 3), (2, 2), SAME, activation=Activation.RELU6),
        DepthwiseConv2d("depthwise", ("stem",), (3, 3), padding=SAME, activation=Activation.HARD_SWISH),
        Pool2d("squeeze", ("depthwise",), PoolKind.AVERAGE, (8, 7), (8, 7)),
        Conv2d("reduce", ("squeeze",), 4, activation=Activation.RELU),
        Conv2d("gate", ("reduce",), 8, activation=Activation.HARD_SIGMOID),
        Multiply("excited", ("depthwise", "gate")),
        Conv2d("project", ("excited", "stem"), 8, activation=Activation.RELU),
        Pool2d("pool", ("project",), PoolKind.MAX, (3, 3), (2, 2), SAME),
        Conv2d("wide", ("pool",), 8, (3, 3), (1, 1), SAME, activation=Activation.SWISH),
        Add("sum", ("wide", "pool"), Activation.RELU),
        Concat("both", ("sum", "pool")),
        Pool2d("global", ("both",), PoolKind.AVERAGE, (4, 4), (4, 4)),
        Conv2d("head", ("global",), 5),
    )
)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """ONNX Runtime and torch flush them for our benchmarks, and leave the calling thread so: other tests need them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def network() -> Graph:
    """Operators of every kind that all peers know."""
    return EVERY_PEER
