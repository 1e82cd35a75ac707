"""The host's answer, which numpy computes, is torch's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from device_farm.compiler import reference_output
from device_farm.compiler.element import Element
from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Multiply,
    Op,
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
from device_farm.compiler.testing import chain, random_weights

UNEVEN = Padding(1, 2, 0, 3)  # top, bottom, left, right
Torch = Callable[[Tensor, Tensor, Tensor], Tensor]  # of the image 1 x channels x height x width, weights and biases


def padded(x: Tensor, value: float = 0.0) -> Tensor:
    return functional.pad(x, (UNEVEN.left, UNEVEN.right, UNEVEN.top, UNEVEN.bottom), value=value)


CASES: list[tuple[Op, Torch]] = [
    (Conv2d("y", (), 10), lambda x, w, b: functional.conv2d(x, w, b)),
    (
        Conv2d("y", (), 9, (3, 3), (2, 1), UNEVEN, groups=3),
        lambda x, w, b: functional.conv2d(padded(x), w, b, (2, 1), groups=3),
    ),
    (
        Conv2d("y", (), 5, (2, 4), (1, 3), UNEVEN, dilation=(3, 2)),
        lambda x, w, b: functional.conv2d(padded(x), w, b, (1, 3), dilation=(3, 2)),
    ),
    (
        DepthwiseConv2d("y", (), (3, 2), (2, 2), UNEVEN, dilation=(2, 3)),
        lambda x, w, b: functional.conv2d(padded(x), w, b, 2, dilation=(2, 3), groups=12),
    ),
    (
        Pool2d("y", (), kernel=(3, 4), stride=(2, 3), padding=UNEVEN),
        lambda x, w, b: functional.avg_pool2d(padded(x), (3, 4), (2, 3)),
    ),
    (
        Pool2d("y", (), kernel=(3, 4), stride=(2, 3), padding=UNEVEN, pool=PoolKind.MAX),
        lambda x, w, b: functional.max_pool2d(padded(x, -torch.inf), (3, 4), (2, 3)),
    ),
    (Add("y", ("x", "x")), lambda x, w, b: x + x),
    (Multiply("y", ("x", "x")), lambda x, w, b: x * x),
    (Softmax("y", ()), lambda x, w, b: x.softmax(1)),
    (Concat("y", ("x", "x", "x")), lambda x, w, b: torch.cat([x, x, x], 1)),
    (SliceChannels("y", (), first=3, channels=5), lambda x, w, b: x[:, 3:8]),
    (ShuffleChannels("y", (), groups=3), lambda x, w, b: functional.channel_shuffle(x, 3)),
    (ResizeChannels("y", (), channels=17), lambda x, w, b: functional.pad(x, (0, 0, 0, 0, 0, 5))),
    (ResizeChannels("y", (), channels=7), lambda x, w, b: x[:, :7]),
]
ACTIVATIONS: list[tuple[Activation, Callable[[Tensor], Tensor]]] = [
    (Activation.NONE, lambda x: x),
    (Activation.RELU, functional.relu),
    (Activation.RELU6, functional.relu6),
    (Activation.SIGMOID, torch.sigmoid),
    (Activation.HARD_SIGMOID, functional.hardsigmoid),
    (Activation.SWISH, functional.silu),
    (Activation.HARD_SWISH, functional.hardswish),
]


def both(op: Op, torchs: Torch) -> tuple[np.ndarray, np.ndarray]:
    """Ours and torch's answer (height, width, channels) for one operator on 11 x 13 pixels of 12 channels."""
    graph = chain((11, 13, 12), op)
    weights = random_weights(graph, seed=3)
    image = (np.random.default_rng(4).standard_normal((11, 13, 12)) * 5).astype(np.float32)
    w, b = (torch.from_numpy(weights.get(f"y.{part}", np.zeros(0, np.float32))) for part in ("weight", "bias"))
    theirs = torchs(torch.from_numpy(image).permute(2, 0, 1)[None], w, b)[0].permute(1, 2, 0).numpy()
    return reference_output(graph, weights, image), theirs


@pytest.mark.parametrize(("op", "torchs"), CASES, ids=lambda case: getattr(case, "kind", ""))
def test_operators(op: Op, torchs: Torch) -> None:
    ours, theirs = both(op, torchs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("activation", "torchs"), ACTIVATIONS, ids=lambda case: str(getattr(case, "value", "")))
def test_activations(activation: Activation, torchs: Callable[[Tensor], Tensor]) -> None:
    ours, theirs = both(Activate("y", (), activation=activation), lambda x, w, b: torchs(x))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    summed, theirs = both(Add("y", ("x", "x"), activation=activation), lambda x, w, b: torchs(x + x))
    np.testing.assert_allclose(summed, theirs, rtol=1e-6, atol=1e-6)


def test_far_arguments_of_exponentials_raise_no_warning() -> None:
    image = np.array([-1e4, -100.0, 0.0, 100.0, 1e4], np.float32)
    for activation in (Activation.SIGMOID, Activation.SWISH):
        with np.errstate(all="raise"):
            got = reference_output(chain((1, 1, 5), Activate("y", (), activation=activation)), {}, image)
        assert np.isfinite(got).all()


def test_scattered_channels() -> None:
    graph = chain((2, 2, 3), ScatterChannels("y", (), channels=6))
    image = np.arange(12, dtype=np.float32) + 1
    got = reference_output(graph, {"y.index": np.array([1, 2, 5], np.int32)}, image)
    expected = np.zeros((2, 2, 6), np.float32)
    expected[:, :, [1, 2, 5]] = image.reshape(2, 2, 3)
    np.testing.assert_array_equal(got, expected)


def test_a_vector_of_factors() -> None:
    x = Input("x", (), Shape(4, 5, 6))
    graph = Graph((x, Pool2d("mean", ("x",), kernel=(4, 5)), Multiply("y", ("x", "mean"))))
    image = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    expected = image * image.mean(axis=(0, 1), keepdims=True)
    np.testing.assert_allclose(reference_output(graph, {}, image), expected, rtol=1e-5, atol=1e-6)


def test_every_output_is_rounded_to_what_is_stored() -> None:
    graph = chain((1, 1, 3), Add("y", ("x", "x")))
    image = np.array([1 / 3, 2049.0, 4e4], np.float32)
    got = reference_output(graph, {}, image, stored=Element.FLOAT16).reshape(-1)
    third = np.float16(1 / 3)
    np.testing.assert_array_equal(got, np.array([2 * third, 4096.0, np.inf], np.float32))


def test_many_rows_are_one_answer_band_by_band() -> None:
    op = Conv2d("y", (), 3, (5, 5))
    graph = chain((150, 160, 8), op)
    weights = random_weights(graph, seed=1)
    image = np.random.default_rng(2).standard_normal((150, 160, 8)).astype(np.float32)
    w, b = (torch.from_numpy(weights[f"y.{part}"]) for part in ("weight", "bias"))
    theirs = functional.conv2d(torch.from_numpy(image).permute(2, 0, 1)[None], w, b)
    ours = reference_output(graph, weights, image)
    np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0).numpy(), rtol=1e-4, atol=1e-4)


def test_compiling_needs_no_torch_and_a_front_end_may_follow(tmp_path: Path) -> None:
    """In a process of its own: TVM is imported without torch, and its torch front end works afterwards."""
    script = """
import sys
from pathlib import Path
from device_farm.compiler import compile_network, host_target
from device_farm.compiler.graph import Conv2d, Shape
from device_farm.compiler.testing import chain
places = {"target": host_target(), "out_dir": Path(sys.argv[1], "out"), "cache_dir": Path(sys.argv[1], "cache")}
compile_network(chain((4, 4, 8), Conv2d("y", (), 8)), **places)
assert "tvm" in sys.modules and "torch" not in sys.modules
import torch
from device_farm.compiler.frontend import import_module
module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
imported = import_module(module, Shape(8, 8, 3))
compile_network(imported.graph, weights=imported.weights, **places)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
