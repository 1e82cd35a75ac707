"""Activations that stay planes between layers in blocks of eight filters."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import device_farm.compiler.layout as layout_module
from device_farm.compiler import AVX2, AVX512, NEON, Graph, compile_network, host_target, parting, planar
from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Input,
    Multiply,
    Op,
    Padding,
    Pool2d,
    Shape,
)
from device_farm.compiler.kernels.spec import PlanarKernel, PlanesKernel
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.strides import TiledPlanes
from device_farm.compiler.testing import Answer, Check, chain, random_weights

AVX512_ONLY = pytest.mark.skipif(host_target() != AVX512, reason="this machine has no AVX-512")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can stay planes does, also where it does not pay: tests are small."""
    monkeypatch.setattr(planar, "half_cycles", lambda *_: float("inf"))
    monkeypatch.setattr(planar, "KEPT", -1000.0)


def conv(name: str, inputs: tuple[str, ...], filters: int, channels: int, **fields: object) -> Conv2d:
    """About a third of the taps in blocks of eight filters, one of which has none."""
    kernel = int(fields.pop("size", 1))  # type: ignore[call-overload]
    defaults = {"padding": Padding.same(kernel), "activation": Activation.RELU} | fields
    counts = [channels * kernel**2 // 3 + block % 3 for block in range(-(-filters // 8))]
    counts[-1] = 0
    sparsity = BlockSparsity(8, tuple(counts))
    return Conv2d(name, inputs, filters, (kernel, kernel), sparsity=sparsity, **defaults)  # type: ignore[arg-type]


def bottlenecks(size: int) -> Graph:
    """Two, the first of which has another width; behind them a stride."""
    return Graph(
        (
            Input("x", (), Shape(size, size, 24)),
            conv("beside", ("x",), 64, 24, activation=Activation.NONE),
            conv("a1", ("x",), 24, 24),
            conv("a3", ("a1",), 24, 24, size=3),
            conv("a", ("a3", "beside"), 64, 24),
            conv("b1", ("a",), 24, 64),
            conv("b3", ("b1",), 24, 24, size=3),
            conv("b", ("b3", "a"), 64, 24, activation=Activation.HARD_SWISH),
            conv("c1", ("b",), 40, 64, activation=Activation.SWISH),
            conv("c", ("c1", "b"), 64, 40),
            conv("behind", ("c",), 40, 64, stride=(2, 2)),
        )
    )


def inverted(size: int) -> Graph:
    """Projections, a sum on its own, expansions for depthwise layers; a number of filters that fills no vector."""
    depthwise = {"padding": Padding.same(3), "activation": Activation.RELU6}
    return Graph(
        (
            Input("x", (), Shape(size, size, 40)),
            conv("p0", ("x",), 24, 40, activation=Activation.NONE),
            conv("e1", ("p0",), 72, 24),
            DepthwiseConv2d("d1", ("e1",), **depthwise),  # type: ignore[arg-type]
            conv("p1", ("d1",), 24, 72, activation=Activation.NONE),
            Add("sum", ("p1", "p0")),
            Activate("act", ("sum",), activation=Activation.HARD_SWISH),
            conv("e2", ("act",), 100, 24),
            conv("p2", ("e2", "sum"), 24, 100, activation=Activation.SIGMOID),
            conv("head", ("p2",), 56, 24),
        )
    )


GRAPHS = {
    "bottlenecks of one tile": (bottlenecks(7), {"beside", "a3", "a", "b3", "b", "c1"}),
    "bottlenecks": (bottlenecks(14), {"beside", "a3", "a", "b3", "b", "c1"}),
    "a map that is no square": (
        chain((7, 21, 16), conv("a", (), 16, 16), conv("b", (), 24, 16), conv("c", (), 16, 24)),
        {"a", "b"},
    ),
    "sums and activations": (inverted(14), {"p0", "p1", "sum", "act", "e2", "p2"}),
    "several bands": (chain((56, 14, 80), conv("a", (), 24, 80), conv("b", (), 16, 24)), {"a"}),
    "a stride that writes planes": (
        chain((14, 14, 16), conv("a", (), 16, 16, size=3, stride=(2, 2)), conv("b", (), 16, 16)),
        {"a"},
    ),
    "one image twice": (
        Graph(
            (
                Input("x", (), Shape(7, 7, 16)),
                conv("a", ("x",), 16, 16),
                conv("b", ("a", "a"), 16, 16),
                Add("double", ("b", "b")),
                conv("c", ("double",), 16, 16),
            )
        ),
        {"a", "b", "double"},
    ),
}


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", GRAPHS)
def test_all_that_can_stay_planes_does(name: str) -> None:
    graph, kept = GRAPHS[name]
    assert plan_memory(graph, AVX512).tiled.keys() == kept


@AVX512_ONLY
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_answers_are_right(name: str, shared: bool, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = GRAPHS[name]
    if shared:
        monkeypatch.setattr(layout_module, "SHARING_THRESHOLD", 0)
    check(graph, target=AVX512)
    check(graph, target=AVX512, weights=random_weights(graph, seed=3, density=0.4))


@AVX512_ONLY
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", ["bottlenecks", "sums and activations", "several bands"])
def test_bits_do_not_depend_on_the_threads(
    name: str, answer: Answer, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cost in ("TURN_COST", "TURN_COST_PER_THREAD"):
        monkeypatch.setattr(parting, cost, 0.0)
    monkeypatch.setattr(parting, "WORTH", 1.0)
    graph, _ = GRAPHS[name]
    images = np.random.default_rng(5).uniform(-1, 1, (3, *graph.input.shape)).astype(np.float32)
    outputs = [
        answer(
            compile_network(graph, target=AVX512, out_dir=tmp_path / str(n), cache_dir=cache_dir, threads=n), images
        )
        for n in (1, 2, 4)
    ]  # fmt: skip
    np.testing.assert_array_equal(outputs[1], outputs[0])
    np.testing.assert_array_equal(outputs[2], outputs[0])


@AVX512_ONLY
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("seed", range(4))
def test_random_networks(seed: int, check: Check) -> None:
    """Whoever reads what, by whatever kernel."""
    random = np.random.default_rng(seed)
    size = int(random.choice([7, 14]))
    ops: list[Op] = [Input("x", (), Shape(size, size, 16))]
    widths = {"x": 16}
    for index in range(9):
        name, source = f"op{index}", str(random.choice(list(widths)))
        channels = widths[source]
        same = [other for other in widths if widths[other] == channels]
        kind = random.choice(["conv", "residual", "window", "add", "activate", "depthwise", "gate"], p=[0.35, *[0.15] * 3, *[0.2 / 3] * 3])  # fmt: skip # noqa: E501
        other, filters = str(random.choice(same)), int(random.choice([16, 24]))
        op: Op = {
            "conv": conv(name, (source,), filters, channels),
            "residual": conv(name, (source, other), channels, channels),
            "window": conv(name, (source,), filters, channels, size=3),
            "add": Add(name, (source, other)),
            "activate": Activate(name, (source,), activation=Activation.HARD_SIGMOID),
            "depthwise": DepthwiseConv2d(name, (source,), padding=Padding.same(3)),
            "gate": Multiply(name, (source, other)),
        }[str(kind)]
        ops.append(op)
        widths[name] = filters if kind in ("conv", "window") else channels
    graph = Graph((*ops, Pool2d("mean", (ops[-1].name,), kernel=(size, size))))
    assert plan_memory(graph, AVX512).tiled
    check(graph, target=AVX512)


def test_what_lies_between_is_neither_written_again_nor_transposed() -> None:
    low = [BlockSparsity(8, (25,) * 32) for _ in range(3)]
    layers = [Conv2d(name, (), 256, sparsity=blocks) for name, blocks in zip("abc", low, strict=True)]
    graph = chain((14, 14, 256), *layers)
    memory = plan_memory(graph, AVX512)
    packed, _ = pack(graph, memory, target=AVX512, weights=None, seed=1)
    specs = [[call.spec for call in step.calls] for step in lower(graph, memory, packed, AVX512)]
    assert [type(spec) for spec in specs[0]] == [PlanesKernel, PlanarKernel]
    planar_specs = [own[-1] for own in specs]
    assert [len(own) for own in specs] == [2, 1, 1]
    assert [(spec.x_tiled, spec.y_tiled) for spec in planar_specs if isinstance(spec, PlanarKernel)] == [
        (False, True), (True, True), (True, False)
    ]  # fmt: skip


def test_planes_are_kept_only_where_it_pays_and_where_the_target_has_them() -> None:
    def kept(*filters: int, channels: int = 1024, rate: int = 10) -> set[str]:
        ops, widths = [], (channels, *filters)
        for index, (before, own) in enumerate(itertools.pairwise(widths)):
            blocks = BlockSparsity(8, (max(1, before // rate),) * (own // 8))
            ops.append(Conv2d(f"op{index}", (), own, sparsity=blocks))
        return set(plan_memory(chain((14, 14, channels), *ops), AVX512).tiled)

    assert kept(256, 1024, 256) == {"op0", "op1"}
    assert kept(16, 16) == set(), "planes of 1024 channels cost more than those of 16 save"
    graph = bottlenecks(14)
    for target in (AVX2, NEON):
        assert not plan_memory(graph, target).tiled and not plan_memory(graph, target).planar


@pytest.mark.usefixtures("always")
def test_others_stay_as_they_are() -> None:
    """Maps of no whole tiles, and whatever a window, a stride, a pooling or the outside reads."""
    assert not plan_memory(bottlenecks(13), AVX512).tiled
    for reader in (
        conv("b", (), 16, 16, size=3),
        conv("b", (), 16, 16, stride=(2, 2)),
        Conv2d("b", (), 64),
        DepthwiseConv2d("b", (), padding=Padding.same(3)),
        Pool2d("b", (), kernel=(7, 7)),
        Activate("b", ()),
    ):
        assert not plan_memory(chain((7, 7, 16), conv("a", (), 16, 16), reader), AVX512).tiled, reader


@pytest.mark.parametrize("channels", [16, 48])
def test_every_number_has_one_place(channels: int) -> None:
    planes = TiledPlanes(98, 49, channels)
    places = {
        tile * planes.tile + (channel * 48 + pixel if pixel < 48 else planes.singles + channel)
        for tile, channel, pixel in itertools.product(range(planes.tiles), range(channels), range(49))
    }
    assert places == set(range(planes.elements))
