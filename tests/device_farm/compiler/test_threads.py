"""Artifacts of several threads: the same bits as with one, on every kind of step, and the pool at its work."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_farm.compiler.fusing as fusing
import device_farm.compiler.layout as layout_module
import device_farm.compiler.parting as parting
from device_farm.compiler import AVX512, NEON, Graph, Target, compile_network
from device_farm.compiler.compile import artifact_key, load_artifact
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import (
    Activation,
    Add,
    BlockSparsity,
    Concat,
    Conv2d,
    DepthwiseConv2d,
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
from device_farm.compiler.kernels.spec import PlanarKernel, PlanesKernel, WinogradInput, WinogradProduct
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.parting import Phase, phases, work
from device_farm.compiler.steps import Bands, Call, Step
from device_farm.compiler.target import host_target
from device_farm.compiler.testing import Answer, chain, random_weights
from device_farm.errors import CompileError

RELU, RELU6, SWISH = Activation.RELU, Activation.RELU6, Activation.SWISH


def conv(name: str, inputs: tuple[str, ...], filters: int, kernel: int = 1, stride: int = 1, **more: Any) -> Conv2d:
    settings: dict[str, Any] = {"padding": Padding.same(kernel), "activation": RELU} | more
    return Conv2d(name, inputs, filters=filters, kernel=(kernel,) * 2, stride=(stride,) * 2, **settings)


def depthwise(name: str, source: str, stride: int = 1, kernel: int = 3) -> DepthwiseConv2d:
    return DepthwiseConv2d(
        name, (source,), kernel=(kernel,) * 2, stride=(stride,) * 2, padding=Padding.same(kernel), activation=RELU6
    )


def image(height: int, width: int, channels: int = 3) -> Input:
    return Input("x", (), Shape(height, width, channels))


NETWORKS: dict[str, Graph] = {
    "plain and residual": Graph(
        (
            image(33, 30),
            conv("stem", ("x",), 24, 5, 2),
            Pool2d("max", ("stem",), pool=PoolKind.MAX, kernel=(3, 3), stride=(2, 2), padding=Padding.same(3)),
            conv("even", ("max",), 40, 3),  # Winograd, tiles that overlap
            conv("odd", ("even",), 40, 3),
            Add("sum", ("odd", "even"), activation=RELU),
            conv("down", ("sum",), 70, 3, 2),
            conv("one", ("down",), 130, sparsity=BlockSparsity(8, tuple(k % 11 * 7 for k in range(17)))),
            Pool2d("mean", ("one",), kernel=(5, 4)),
            conv("head", ("mean",), 77, activation=Activation.NONE),
            Softmax("softmax", ("head",)),
        )
    ),
    "Winograd by blocks of tiles": chain(
        (28, 44, 3), conv("stem", (), 64, 3), conv("a", (), 64, 3), conv("b", (), 32, 3), conv("c", (), 8, 1)
    ),
    "stem by rows of tiles": chain((112, 112, 3), conv("stem", (), 64, 7, 2), conv("a", (), 40, 1)),
    "inverted residuals": Graph(
        (
            image(30, 26),
            conv("stem", ("x",), 36, 3, 2, activation=RELU6),
            depthwise("d0", "stem"),
            conv("p0", ("d0",), 16, activation=Activation.NONE),
            conv("e1", ("p0",), 96, activation=RELU6, sparsity=BlockSparsity(32, (2, 5, 12))),
            depthwise("d1", "e1", 2),
            conv("p1", ("d1",), 24, activation=Activation.NONE),
            conv("e2", ("p1",), 144, activation=RELU6),
            depthwise("d2", "e2"),
            conv("p2", ("d2", "p1"), 24, activation=Activation.NONE),
            conv("e3", ("p2",), 100, activation=RELU6),
            depthwise("d3", "e3", kernel=5),
            conv("p3", ("d3", "p2"), 24, activation=Activation.NONE),
            depthwise("reader", "p3"),
        )
    ),
    "squeeze and excite": Graph(
        (
            image(14, 15),
            conv("stem", ("x",), 48, 3, activation=SWISH),
            depthwise("dw", "stem", kernel=5),
            Pool2d("pool", ("dw",), kernel=(14, 15)),
            conv("fc1", ("pool",), 12, activation=SWISH),
            conv("fc2", ("fc1",), 48, activation=Activation.SIGMOID),
            Multiply("scale", ("dw", "fc2")),
            conv("last", ("scale",), 40, activation=Activation.HARD_SWISH),
        )
    ),
    "channels": Graph(
        (
            image(11, 13),
            conv("stem", ("x",), 45, 3, groups=3),
            SliceChannels("slice", ("stem",), first=2, channels=30),
            Concat("joined", ("slice", "stem")),
            ShuffleChannels("shuffled", ("joined",), groups=3),
            conv("grouped", ("shuffled",), 50, 3, groups=25),
            ResizeChannels("cut", ("grouped",), channels=33),
            ScatterChannels("scatter", ("cut",), channels=60),
            conv("dilated", ("scatter",), 20, 3, dilation=(2, 2), padding=Padding.same(5)),
            Softmax("softmax", ("dilated",)),
        )
    ),
    "planes": chain(
        (21, 20, 64),
        conv("a", (), 128, 3, sparsity=BlockSparsity(8, (90,) * 16)),
        conv("b", (), 264, sparsity=BlockSparsity(8, (30,) * 33)),
    ),
    "fewer rows than threads": chain((1, 3, 40), conv("a", (), 33), conv("b", (), 7), conv("c", (), 1)),
}


@pytest.fixture
def cut_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it does not pay: tests are small."""
    monkeypatch.setattr(parting, "TURN_COST", 0.0)
    monkeypatch.setattr(parting, "TURN_COST_PER_THREAD", 0.0)
    monkeypatch.setattr(parting, "WORTH", 1.0)
    monkeypatch.setattr(fusing, "LEAST_FLOATS", 0)


def check_threads(
    graph: Graph, target: Target, *, counts: tuple[int, ...], answer: Answer, folder: Path, cache_dir: Path
) -> None:
    """All counts of threads give the bits of one, for seeded and for given weights, run after run."""
    shape = graph.input.shape
    images = np.random.default_rng(5).uniform(-1, 1, (3, *shape)).astype(np.float32)
    for weights in (None, random_weights(graph, seed=4, density=0.6)):
        if weights is not None and any(isinstance(op, ScatterChannels) for op in graph.ops):
            continue
        outputs = {}
        for threads in (1, *counts):
            artifact = compile_network(
                graph, target=target, out_dir=folder / str(threads), cache_dir=cache_dir, weights=weights,
                threads=threads,
            )  # fmt: skip
            assert artifact.threads == threads
            outputs[threads] = answer(artifact, images[[0, 1, 2, 0, 1, 2]])
        np.testing.assert_array_equal(outputs[1][:3], outputs[1][3:])
        for threads in counts:
            np.testing.assert_array_equal(outputs[threads], outputs[1], f"{threads} threads")


@pytest.mark.usefixtures("cut_everything")
@pytest.mark.parametrize("name", NETWORKS)
def test_bits_do_not_depend_on_the_threads(
    name: str, native: Target, answer: Answer, tmp_path: Path, cache_dir: Path
) -> None:
    check_threads(NETWORKS[name], native, counts=(2, 4), answer=answer, folder=tmp_path, cache_dir=cache_dir)


@pytest.mark.usefixtures("cut_everything")
def test_nor_where_buffers_share_their_places_and_bands_are_small(
    answer: Answer, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_module, "SHARING_THRESHOLD", 0)  # borders are written in every run, by all threads
    monkeypatch.setattr(fusing, "WHOLE_PIXELS", 9)
    for name in ("inverted residuals", "plain and residual"):
        folder = tmp_path / name.replace(" ", "-")
        check_threads(NETWORKS[name], host_target(), counts=(7,), answer=answer, folder=folder, cache_dir=cache_dir)


@pytest.mark.qemu
@pytest.mark.usefixtures("cut_everything")
@pytest.mark.parametrize("name", ["plain and residual", "inverted residuals"])
def test_on_neon(name: str, answer: Answer, tmp_path: Path, cache_dir: Path) -> None:
    check_threads(NETWORKS[name], NEON, counts=(4,), answer=answer, folder=tmp_path, cache_dir=cache_dir)


def steps_of(graph: Graph, threads: int, target: Target = AVX512) -> list[tuple[Step, tuple[Phase, ...]]]:
    memory = plan_memory(
        graph,
        target,
        fused_blocks(graph, threads=threads),
        living_blocks(graph, target, weights=None, seed=0),
        threads=threads,
    )
    packed, _ = pack(graph, memory, target=target, weights=None, seed=0)
    steps = lower(graph, memory, packed, target)
    return [(step, phases(step, threads, memory=memory, target=target)) for step in steps]


def big(*ops: Op) -> Graph:
    return chain((56, 56, 16), *ops)


def test_bands_of_planes_and_blocks_of_filters_are_shared() -> None:
    """Threads write the planes of their own bands; of a single band, they share channels and then filters."""
    filters = [BlockSparsity(8, (120,) * blocks) for blocks in (16, 128)]
    layers = [conv("a", (), 128, 3, sparsity=filters[0]), conv("b", (), 1024, sparsity=filters[1])]
    for size, layer, kinds in ((112, layers[0], {2}), (7, layers[1], {1})):
        ((step, cut),) = steps_of(chain((size, size, 512 if size == 7 else 64), layer), 4)
        assert isinstance(step.calls[1].spec, PlanarKernel)
        assert {len({type(call.spec) for call in part.calls}) for phase in cut for part in phase.parts} == kinds
        planes = [
            {call.arguments["y"] for call in part.calls if isinstance(call.spec, PlanesKernel)}
            for phase in cut
            for part in phase.parts
        ]
        written = [place for part in planes for place in part]
        assert len(written) == len(set(written)), "no two threads write to one place"


def test_small_steps_stay_on_one_thread() -> None:
    assert all(len(phase.parts) == 1 for _, cut in steps_of(NETWORKS["fewer rows than threads"], 4) for phase in cut)


def test_one_thread_has_one_part() -> None:
    for step, cut in steps_of(big(conv("a", (), 64, 3), conv("b", (), 64)), 1):
        assert [part.calls for phase in cut for part in phase.parts] == [step.calls]


@pytest.mark.parametrize("threads", [2, 4])
def test_large_steps_are_balanced(threads: int) -> None:
    uneven = BlockSparsity(32, (64, 1, 60, 3, 33, 9, 64, 2))
    graph = big(conv("a", (), 64, 3, 2), conv("b", (), 256, sparsity=uneven), conv("c", (), 256, 3))
    memory = plan_memory(graph, AVX512)
    for (alone, _), (step, cut) in zip(steps_of(graph, 1), steps_of(graph, threads), strict=True):
        assert all(len(phase.parts) == threads for phase in cut), step.name
        ideal = work(alone, memory=memory, target=AVX512) / threads
        assert sum(phase.cost for phase in cut) < 1.05 * ideal, step.name


def test_bands_are_divided_and_each_thread_has_rings_of_its_own() -> None:
    graph = big(conv("in", (), 24), conv("e", (), 144), depthwise("d", "e"), conv("p", ("d",), 24))
    step, (phase,) = steps_of(graph, 4)[-1]
    assert step.bands is not None
    bands = [part.bands for part in phase.parts]
    assert all(isinstance(part, Bands) for part in bands)
    limits = [(part.first_row, part.output_rows) for part in bands if part is not None]
    assert limits == [(0, 14), (14, 28), (28, 42), (42, 56)]
    assert [part.first_expanded for part in bands if part is not None] == [0, 13, 27, 41]
    rings = [range(c.ring, c.ring + part.ring.elements) for part in bands if part is not None for c in part.chunks]
    assert all(a.stop <= b.start or b.stop <= a.start for a, b in itertools.combinations(rings, 2))


def test_a_block_of_one_band_is_divided_by_chunks() -> None:
    graph = chain((7, 7, 160), conv("in", (), 160), conv("e", (), 960), depthwise("d", "e"), conv("p", ("d",), 160))
    step, (chunks, project) = steps_of(graph, 4)[-1]
    assert step.bands is not None
    assert sorted(len(part.bands.chunks) for part in chunks.parts if part.bands is not None) == [3, 4, 4, 4]
    assert len(project.parts) == 4 and all(part.bands is None for part in project.parts)


def test_threads_are_part_of_the_key_and_the_manifest(tmp_path: Path, cache_dir: Path) -> None:
    graph = NETWORKS["fewer rows than threads"]
    keys = {threads: artifact_key(graph, target=AVX512, threads=threads) for threads in (1, 2, 4)}
    assert len(set(keys.values())) == 3 and keys[1] == artifact_key(graph, target=AVX512)
    artifact = compile_network(graph, target=AVX512, out_dir=tmp_path, cache_dir=cache_dir, threads=2)
    assert (artifact.key, artifact.threads) == (keys[2], 2)
    assert load_artifact(artifact.path) == artifact


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_a_wrong_number_of_threads_is_refused(threads: int, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=rf"threads must lie in 1..64, got {threads}"):
        compile_network(
            NETWORKS["channels"], target=AVX512, out_dir=tmp_path, cache_dir=tmp_path / "c", threads=threads
        )
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("cut_everything")
def test_thousands_of_runs_on_too_few_cores(native: Target, tmp_path: Path, cache_dir: Path) -> None:
    """Every turn of the pool is a chance to lose a wake-up: threads that sleep, and more of them than cores."""
    graph = NETWORKS["squeeze and excite"]
    artifact = compile_network(graph, target=native, out_dir=tmp_path, cache_dir=cache_dir, threads=4)
    cores = sorted(os.sched_getaffinity(0))
    for cpus in ([cores[0]], cores[:2], cores):
        command = [
            str(artifact.path), "bench", "--cpus", ",".join(map(str, cpus)), "--min-time-s", "0",
            "--min-samples", "1500", "--max-samples", "1500",
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
        report = json.loads(done.stdout)
        assert report["output_repeats"] is True
        assert len(report["samples_ns"]) == 1500
        assert report["threads"] == [[cpus[thread % len(cpus)]] for thread in range(4)]
        np.testing.assert_allclose(report["output"], artifact.expected_output, atol=1e-4)


def number(call: Call, name: str) -> int:
    value = call.arguments[name]
    assert isinstance(value, int)
    return value


def test_winograd_by_tiles_covers_all_of_them_with_the_kernels_that_are_there() -> None:
    """Also where a thread's last block would have fewer tiles than the products take at once."""
    for name in ("a", "b"):
        for threads in (2, 3, 4, 7):
            cut = {
                step.op.name: (step, way) for step, way in steps_of(NETWORKS["Winograd by blocks of tiles"], threads)
            }
            step, _ = cut[name]
            memory = plan_memory(NETWORKS["Winograd by blocks of tiles"], AVX512, threads=threads)
            (phase,), _ = parting._Cut(threads, memory, AVX512).ways(step)
            inputs = [call for part in phase.parts for call in part.calls if isinstance(call.spec, WinogradInput)]
            spans = [(number(call, "first"), number(call, "tiles")) for call in inputs]
            assert {tile for first, count in spans for tile in range(first, first + count)} == set(range(7 * 11))
            assert {call.spec for part in phase.parts for call in part.calls} <= {call.spec for call in step.calls}
            calls = [call for part in phase.parts for call in part.calls]
            assert all(number(c, "tiles") >= c.spec.tiles for c in calls if isinstance(c.spec, WinogradProduct))
