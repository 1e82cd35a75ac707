"""The kernels' benchmark: its layers, its means and bars, and the clock inside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks._layers import LAYERS, NAME, Layer
from benchmarks._nodes import OnnxRuntimeNodes
from benchmarks._onnx import to_onnx
from benchmarks.kernels import bars, by_class, chosen_layers, times_faster
from device_farm.compiler.weights import seeded_weights


def test_the_layers_are_many_distinct_and_of_every_kind() -> None:
    assert len({layer.name for layer in LAYERS}) == len(LAYERS) >= 30
    assert {layer.kind for layer in LAYERS} == {"stem", "1x1", "1x1 s2", "3x3", "3x3 s2", "depthwise", "fc"}
    for layer in LAYERS:
        shape = layer.graph().shapes[NAME]
        assert shape.height == -(-layer.size // layer.stride) and shape.channels == layer.filters


def test_layers_are_chosen_by_any_of_several_texts() -> None:
    names = [layer.name for layer in chosen_layers(["vgg16 fc", "dw 5x5/2 672"])]
    assert names == ["mobilenet_v3 dw 5x5/2 672->672 @14", "vgg16 fc 4096->4096 @1"]
    assert chosen_layers(None) == list(LAYERS)


def measured(kind: str, dense: float, pruned: float | None = None) -> dict[str, Any]:
    variants: dict[str, Any] = {"dense": {"over_onnxruntime": dense}}
    if pruned is not None:
        variants["block 32 5x"] = {"efficiency": pruned}
    return {"layer": f"{kind} {dense}", "class": kind, "variants": variants}


def test_means_are_geometric_and_leave_out_layers_without_the_figure() -> None:
    results = [measured("1x1", 1.0), measured("1x1", 4.0), measured("fc", 2.0, 0.5)]
    dense = by_class(results, lambda one: one["variants"]["dense"]["over_onnxruntime"])
    assert dense == pytest.approx({"1x1": 2.0, "fc": 2.0, "all": 2.0})
    pruned = by_class(results, lambda one: one["variants"].get("block 32 5x", {}).get("efficiency"))
    assert pruned == pytest.approx({"fc": 0.5, "all": 0.5})


def test_a_disturbed_round_on_either_side_makes_no_speed_up() -> None:
    assert times_faster([1.0, 1.0, 1.0], [2.0, 2.0, 9.0]) == 2.0
    assert times_faster([1.0, 9.0, 9.0], [2.0, 2.0, 2.0]) == pytest.approx(2 / 9)
    assert times_faster([1.0, 1.0, 1.0], [2.0, 9.0, 9.0]) == 2.0


@pytest.mark.parametrize(
    ("results", "missed"),
    [
        ([measured("1x1", 1.2, 0.95), measured("3x3", 2.0, 0.9)], 0),
        ([measured("1x1", 1.2, 0.8), measured("3x3", 2.0, 0.9)], 1),  # pruned
        ([measured("1x1", 0.9, 0.95), measured("1x1", 1.4, 0.95)], 1),  # at worst
        ([measured("3x3", 1.7, 0.95)], 1),  # mean of a class
    ],
)
def test_a_missed_bar_shows(results: list[dict[str, Any]], missed: int) -> None:
    assert sum(not held for _, held in bars(results)) == missed


def test_onnx_runtime_is_timed_by_its_own_nodes_round_by_round(tmp_path: Path) -> None:
    small, large = (Layer("any", "1x1", size, 32, 32) for size in (4, 64))
    times = []
    for layer in (small, large):
        graph = layer.graph()
        runtime = OnnxRuntimeNodes(to_onnx(graph, seeded_weights(graph, seed=0)).SerializeToString(), tmp_path)
        for _ in range(3):
            runtime.run(0.01)
        rounds = runtime.rounds_us()
        assert len(rounds) == 3
        times.append(min(rounds))
    assert times[1] > 10 * times[0]
    assert not list(tmp_path.iterdir())
