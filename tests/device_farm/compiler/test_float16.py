"""Half-precision artifacts: rounding, ranges, sums, refusals. All of them run under qemu-user."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.models import initialised
from device_farm.compiler import NEON, NEON_FP16, Artifact, Graph, compile_network, seeded_weights, tiling
from device_farm.compiler.assembly import inner_loops, kernel_assembly
from device_farm.compiler.element import Element
from device_farm.compiler.frontend import import_module
from device_farm.compiler.graph import (
    Activate,
    Activation,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Padding,
    Pool2d,
    PoolKind,
    Shape,
    Softmax,
)
from device_farm.compiler.kernels.spec import ConvKernel
from device_farm.compiler.passes import sparsify
from device_farm.compiler.reference import reference_output
from device_farm.compiler.sparsity import QUAD_CHANNELS
from device_farm.compiler.testing import Answer, Check, chain, random_weights
from device_farm.errors import InvalidGraph

pytestmark = pytest.mark.qemu

HALF = 2.0**-11  # largest relative error of one rounding


@pytest.fixture
def build(tmp_path: Path, cache_dir: Path) -> Any:
    def compiled(graph: Graph, weights: dict[str, NDArray[Any]] | None = None, **options: Any) -> Artifact:
        return compile_network(
            graph, target=NEON_FP16, out_dir=tmp_path / "out", cache_dir=cache_dir, weights=weights, **options
        )

    return compiled


def images(graph: Graph, count: int = 1, *, seed: int = 5) -> NDArray[np.float32]:
    shape = (count, *graph.input.shape)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16).astype(np.float32)


def identity(channels: int) -> dict[str, NDArray[np.float32]]:
    return {
        "one.weight": np.eye(channels, dtype=np.float32)[:, :, None, None],
        "one.bias": np.zeros(channels, np.float32),
    }


def one(filters: int, **options: Any) -> Conv2d:
    return Conv2d("one", (), filters=filters, **options)


def test_input_and_output_are_rounded_to_nearest_even(build: Any, answer: Answer) -> None:
    """And numbers below the normal ones (6e-5) survive."""
    graph = chain((4, 4, 8), Pool2d("same", (), pool=PoolKind.MAX, kernel=(1, 1), stride=(1, 1)))
    x = np.random.default_rng(0).standard_normal((4, 4, 8)) * 10.0 ** np.arange(-7, 1)
    x.flat[:4] = 1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-24 * 1.5, 65504
    got = answer(build(graph), x.astype(np.float32)[None])
    np.testing.assert_array_equal(got[0], x.astype(np.float32).astype(np.float16).astype(np.float32).reshape(-1))


def test_tiny_weights_are_not_flushed(build: Any, answer: Answer) -> None:
    graph, weights = chain((1, 1, 8), one(8)), identity(8)
    weights["one.weight"] *= 2.0**-20
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 8) * 64
    np.testing.assert_array_equal(answer(build(graph, weights), x[None])[0], x.reshape(-1) * 2.0**-20)


@pytest.mark.parametrize("kept", [None, (9, 40, 3)])
def test_device_and_host_make_the_same_seeded_weights(kept: tuple[int, ...] | None, build: Any, answer: Answer) -> None:
    sparsity = None if kept is None else BlockSparsity(NEON_FP16.block_height, kept)
    graph = chain(
        (6, 5, 8),
        Conv2d("conv", (), filters=40, kernel=(3, 3), padding=Padding.same(3), sparsity=sparsity),
        DepthwiseConv2d("dw", (), activation=Activation.RELU),
    )
    made, given = build(graph, seed=3), build(graph, seeded_weights(graph, seed=3))
    np.testing.assert_array_equal(answer(made, images(graph)), answer(given, images(graph)))


@pytest.mark.parametrize(("channels", "kernel", "most"), [(192, 5, 4 * HALF), (512, 3, 6 * HALF)])
def test_long_sums_are_cut_into_parts(
    channels: int, kernel: int, most: float, build: Any, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4800 products of a direct convolution, and 512 in every plane of one by Winograd."""
    same = {"kernel": (kernel, kernel), "padding": Padding.same(kernel)}
    graph = chain((4, 5, channels), one(24, activation=Activation.RELU, **same))
    weights, x = random_weights(graph, seed=1), images(graph)
    for name in weights:
        weights[name] = weights[name].astype(np.float16).astype(np.float32)
    exact = reference_output(graph, weights, x[0], double=True).reshape(-1)

    def error() -> float:
        return float(np.sqrt(np.mean((answer(build(graph, weights), x)[0] - exact) ** 2) / np.mean(exact**2)))

    in_parts = error()
    monkeypatch.setattr(tiling, "PART_PRODUCTS", 1 << 20)
    monkeypatch.setattr("device_farm.compiler.compile.compiler_version", lambda: "as one sum")
    assert in_parts < most
    assert error() > 2 * in_parts


def test_averages_of_large_windows_neither_overflow_nor_drift(build: Any, answer: Answer) -> None:
    graph = chain((64, 64, 9), Pool2d("mean", (), kernel=(64, 64)))
    x = 40 + images(graph)  # a sum of 163,840, where float16 ends at 65,504
    exact = x.astype(np.float16).astype(np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(answer(build(graph), x), exact, rtol=HALF)


@pytest.mark.parametrize("activation", list(Activation))
def test_activations_are_as_exact_as_their_result_can_be(activation: Activation, build: Any, answer: Answer) -> None:
    graph = chain((4, 50, 8), Activate("act", (), activation=activation))
    x = np.linspace(-16, 16, graph.input.shape.elements, dtype=np.float32)
    x = x.astype(np.float16).astype(np.float32).reshape(1, *graph.input.shape)
    exact = reference_output(graph, {}, x[0], double=True).reshape(-1)
    error = np.abs(answer(build(graph), x)[0] - exact)
    hard = activation in (Activation.HARD_SIGMOID, Activation.HARD_SWISH)  # two and three roundings near the kink
    assert (error <= HALF * (np.abs(exact) + (2 * np.maximum(1, np.abs(x[0].reshape(-1))) if hard else 1e-4))).all()


def test_softmax_over_many_classes(build: Any, answer: Answer) -> None:
    graph = chain((2, 2, 1001), Softmax("softmax", ()))
    x = (3 * images(graph)).astype(np.float16).astype(np.float32)
    exact = reference_output(graph, {}, x[0], double=True).reshape(-1)
    got = answer(build(graph), x)[0]
    np.testing.assert_allclose(got, exact, rtol=3 * HALF, atol=2.0**-24)
    np.testing.assert_allclose(got.reshape(4, 1001).sum(axis=1), 1, atol=HALF)


def test_a_weight_beyond_the_range_is_an_error_that_names_the_layer(build: Any) -> None:
    graph, weights = chain((3, 3, 8), one(8)), identity(8)
    weights["one.weight"][3, 3] = 70_000
    with pytest.raises(InvalidGraph, match=r"one\.weight holds 70000, but float16 ends at 65504: .*float32"):
        build(graph, weights)
    weights = identity(8)
    weights["one.bias"][0] = 1e6
    with pytest.raises(InvalidGraph, match=r"one\.bias holds 1e\+06"):
        build(graph, weights)


def test_artifacts_hold_half_words_and_say_what_is_tolerated(build: Any, tmp_path: Path, cache_dir: Path) -> None:
    graph = chain((8, 8, 256), one(512, kernel=(5, 5)))
    weights = random_weights(graph, seed=2)
    half = build(graph, weights)
    whole = compile_network(graph, target=NEON, out_dir=tmp_path / "out", cache_dir=cache_dir, weights=weights)
    saved = whole.path.stat().st_size - half.path.stat().st_size
    tap_lists = 4 * 25 * 256 // QUAD_CHANNELS * (512 // NEON.block_height - 512 // NEON_FP16.block_height)
    assert saved == pytest.approx(2 * weights["one.weight"].size + tap_lists, rel=0.01)
    assert (half.tolerance, whole.tolerance) == (5e-3, 1e-4)
    assert half.target == "aarch64-neon-fp16" and NEON_FP16.block_height == 2 * NEON.block_height


@pytest.mark.parametrize(("core", "status"), [("cortex-a53", 10), ("cortex-a72", 10), ("cortex-a76", 0), ("max", 0)])
def test_a_core_without_half_precision_is_refused_before_a_kernel_runs(core: str, status: int, build: Any) -> None:
    artifact = build(chain((4, 4, 8), one(8)))
    options = ["--warmup-s", "0", "--min-time-s", "0.001", "--max-time-s", "0.01", "--min-samples", "1"]
    command = ["qemu-aarch64", "-cpu", core, str(artifact.path), "bench", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    if status:
        assert done.stdout == ""
        assert "half-precision" in done.stderr and "asimdhp" in done.stderr and "illegal" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pixels"), [("mobilenet_v2", 224), ("mobilenet_v3_large", 160), ("resnet18", 96)])
@pytest.mark.parametrize("rate", [1, 5])
def test_whole_networks(name: str, pixels: int, rate: int, check: Check) -> None:
    """With weights from a seed, whose sums are as well conditioned as those of trained networks."""
    graph = import_module(initialised(name).eval(), Shape(pixels, pixels, 3)).graph
    check(graph if rate == 1 else sparsify(graph, rate, NEON_FP16.block_height), target=NEON_FP16)


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(
    ("tile", "channels"), [((1, 10), 1), ((2, 5), 1), ((3, 3), 1), ((1, 8), QUAD_CHANNELS), ((2, 4), QUAD_CHANNELS)]
)
def test_the_inner_loop_multiplies_eight_halves_at_once(tile: tuple[int, int], channels: int, in_parts: bool) -> None:
    """As many fmla as the tile has sums, one load for a tap of each pixel and half a one for a weight; nothing else."""
    rows, columns = tile
    sums, part_taps = 2 * rows * columns, tiling.PART_PRODUCTS // channels if in_parts else 0
    spec = ConvKernel(
        vectors=2,
        vector_lanes=8,
        tap_channels=channels,
        tile_rows=rows,
        tile_columns=columns,
        pixel_stride=64,
        line_stride=64 * 58 if rows > 1 else 0,
        tap_unroll=1,
        activation=Activation.RELU6,
        residual=False,
        part_taps=part_taps,
    )
    body = max(inner_loops(kernel_assembly(spec, NEON_FP16)), key=lambda loop: loop.multiply_adds).instructions
    products = [line for line in body if line.startswith("fmla")]
    taps = len(products) // sums // channels
    assert len(products) == sums * channels * taps > 0
    assert all(".8h" in line for line in products)
    assert not [line for line in body if "fcvt" in line or "[sp" in line or line.startswith(("st", "mov", "dup"))]
    assert sum(line.startswith("ld") for line in body) <= taps * (rows * columns + channels + 1)


def test_conversion_on_the_host() -> None:
    x = np.array([1 + 2.0**-11, -65519.9, 2.0**-25], np.float32)
    assert Element.FLOAT16.converted(x, "x").tolist() == [1.0, -65504.0, 0.0]
    assert Element.FLOAT32.converted(x, "x") is x
    with pytest.raises(InvalidGraph, match="x holds 65520"):
        Element.FLOAT16.converted(np.array([65520], np.float32), "x")
    with pytest.raises(InvalidGraph, match="x holds 70000"):
        Element.FLOAT16.converted(np.array([1, -70000], np.float32), "x")
