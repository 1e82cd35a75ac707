"""The graphs that we write for LiteRT and torch, operator by operator, against the compiler's own reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks._harness import relative_error
from benchmarks._onnx import to_onnx
from benchmarks.peers.process import PeerFailed, PeerProcess
from benchmarks.peers.torch_module import GraphModule
from device_farm.compiler import reference_output, seeded_weights
from device_farm.compiler.graph import (
    Activate,
    Activation,
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
from device_farm.errors import UnsupportedOperator

IMAGE = Input("input", (), Shape(12, 11, 4))
SAME = Padding.same(3)
NETWORKS = {
    "odd padding, dilation, groups": Graph((
        IMAGE,
        Conv2d("even", ("input",), 8, (3, 3), (2, 2), SAME, activation=Activation.SIGMOID),
        Conv2d("dilated", ("even",), 8, (3, 3), (1, 1), Padding.same(5), (2, 2)),
        Conv2d("grouped", ("dilated",), 12, (1, 3), (1, 1), Padding(0, 1, 0, 1), groups=4),
        DepthwiseConv2d("depthwise", ("grouped",), (5, 5), (2, 2), Padding.same(5), activation=Activation.SWISH),
    )),
    "pooling below zero and over a border": Graph((
        IMAGE,
        Conv2d("pixels", ("input",), 8),
        Pool2d("largest", ("pixels",), PoolKind.MAX, (3, 3), (2, 2), SAME),
        Pool2d("means", ("largest",), PoolKind.AVERAGE, (3, 3), (1, 1), SAME),
        Activate("alone", ("means",), Activation.HARD_SIGMOID),
        Softmax("softmax", ("alone",)),
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_litert_and_torch_compute_the_graph(name: str) -> None:
    graph = NETWORKS[name]
    weights = seeded_weights(graph, seed=1)
    image = np.random.default_rng(2).standard_normal((1, 4, 12, 11)).astype(np.float32)
    expected = reference_output(graph, weights, image.transpose(0, 2, 3, 1)).transpose(2, 0, 1)
    with torch.inference_mode():
        assert relative_error(GraphModule(graph, weights)(torch.from_numpy(image)).numpy(), expected) <= 1e-5
    with PeerProcess("litert", to_onnx(graph, weights).SerializeToString()) as peer:
        assert relative_error(peer.answer(image), expected) <= 1e-5


def test_what_cannot_be_written_is_an_error_that_names_it() -> None:
    graph = Graph((IMAGE, ShuffleChannels("shuffled", ("input",), groups=2)))
    with pytest.raises(UnsupportedOperator, match="shuffled: shuffle_channels"):
        GraphModule(graph, {})
    with pytest.raises(PeerFailed, match="shuffle_channels cannot be written as TFLite"):
        PeerProcess("litert", to_onnx(graph, {}).SerializeToString())
