"""NEON artifacts under qemu-user. CI installs it; nothing here is skipped where it is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_farm.compiler import NEON, NEON_FP16, Graph, Target
from device_farm.compiler.graph import (
    Activation,
    BlockSparsity,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Input,
    Multiply,
    Padding,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
    Shape,
    ShuffleChannels,
    SliceChannels,
    Softmax,
)
from device_farm.compiler.testing import Check, chain, random_weights

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.parametrize("target", [NEON, NEON_FP16], ids=lambda target: target.name),
]


def test_gates_and_channels_on_neon(check: Check, target: Target) -> None:
    same: dict[str, Any] = {"padding": Padding.same(3)}
    graph = Graph(
        (
            Input("x", (), Shape(9, 7, 3)),
            Conv2d("stem", ("x",), filters=21, kernel=(3, 3), activation=Activation.HARD_SWISH, **same),
            DepthwiseConv2d("dw", ("stem",), activation=Activation.SWISH, **same),
            Pool2d("pool", ("dw",), kernel=(9, 7)),
            Conv2d("fc1", ("pool",), filters=6, activation=Activation.SWISH),
            Conv2d("fc2", ("fc1",), filters=21, activation=Activation.SIGMOID),
            Conv2d("fc3", ("fc1",), filters=21, activation=Activation.HARD_SIGMOID),
            Multiply("scale", ("dw", "fc2")),
            Multiply("again", ("scale", "fc3")),
            SliceChannels("slice", ("stem",), first=2, channels=15),
            Concat("joined", ("again", "slice", "stem")),
            ShuffleChannels("shuffled", ("joined",), groups=3),
            Conv2d("grouped", ("shuffled",), filters=38, kernel=(3, 3), groups=19),
            Conv2d("head", ("grouped",), filters=10, kernel=(7, 5)),
            Softmax("softmax", ("head",)),
        )
    )
    check(graph, target=target)


def test_every_operator_on_neon(check: Check, target: Target) -> None:
    same: dict[str, Any] = {"padding": Padding.same(3), "activation": Activation.RELU6}
    graph = chain(
        (17, 15, 3),
        Conv2d("stem", (), filters=20, kernel=(3, 3), stride=(2, 2), **same),
        DepthwiseConv2d("dw", (), **same),
        Conv2d("one", (), filters=37, sparsity=BlockSparsity(8, (3, 0, 20, 7, 1))),
        Pool2d("max", (), pool=PoolKind.MAX, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3)),
        ResizeChannels("cut", (), channels=30),
        ScatterChannels("scatter", (), channels=50),
        DepthwiseConv2d("dw5", (), kernel=(5, 5), padding=Padding.same(5)),
        Conv2d("last", (), filters=6, kernel=(5, 4)),
    )
    check(graph, target=target)
    weights = random_weights(graph, seed=1, density=0.4)
    weights["scatter.index"] = (10 + np.arange(30)).astype("int32")
    check(graph, target=target, weights=weights)
