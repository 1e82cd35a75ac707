"""NEON artifacts under qemu-user. CI installs it; nothing here is skipped where it is missing."""

from __future__ import annotations

import pytest

from device_farm.compiler import NEON
from device_farm.compiler.graph import (
    Activation,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Padding,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
)
from device_farm.compiler.testing import Check, chain, random_weights

pytestmark = pytest.mark.qemu


def test_every_operator_on_neon(check: Check) -> None:
    same = {"padding": Padding.same(3), "activation": Activation.RELU6}
    graph = chain(
        (17, 15, 3),
        Conv2d("stem", (), filters=20, kernel=(3, 3), stride=(2, 2), **same),  # type: ignore[arg-type]
        DepthwiseConv2d("dw", (), **same),  # type: ignore[arg-type]
        Conv2d("one", (), filters=37, sparsity=BlockSparsity(8, (3, 0, 20, 7, 1))),
        Pool2d("max", (), pool=PoolKind.MAX, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3)),
        ResizeChannels("cut", (), channels=30),
        ScatterChannels("scatter", (), channels=50),
        DepthwiseConv2d("dw5", (), kernel=(5, 5), padding=Padding.same(5)),
        Conv2d("last", (), filters=6, kernel=(5, 4)),
    )
    check(graph, target=NEON)
    weights = random_weights(graph, seed=1, density=0.4)
    weights["scatter.index"] = (10 + __import__("numpy").arange(30)).astype("int32")
    check(graph, target=NEON, weights=weights)
