"""What is wrong is said with the layer's name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from device_farm.compiler import Graph, compile_network, host_target
from device_farm.compiler.graph import Conv2d, Input, Op, ScatterChannels, Shape
from device_farm.compiler.testing import chain, random_weights
from device_farm.errors import CompileError, InvalidGraph, UnsupportedOperator


@dataclass(frozen=True)
class Median(Op):
    kind: ClassVar[str] = "median"

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


def build(graph: Graph, tmp_path: Path, **options: Any) -> None:
    compile_network(graph, target=host_target(), out_dir=tmp_path, cache_dir=tmp_path / "cache", **options)


def test_an_unknown_operator_is_named_with_a_way_out(tmp_path: Path) -> None:
    graph = Graph((Input("x", (), Shape(1, 1, 4)), Median("middle", ("x",))))
    with pytest.raises(UnsupportedOperator, match=r"middle.*median.*express it"):
        build(graph, tmp_path)


def test_weights_that_do_not_fit_are_named_with_both_shapes(tmp_path: Path) -> None:
    graph = chain((4, 4, 3), Conv2d("layer", (), filters=8), ScatterChannels("places", (), channels=9))
    good = random_weights(graph, seed=0) | {"places.index": np.arange(8, dtype=np.int32)}
    for name, value, message in [
        ("layer.weight", None, r"layer.*no 'layer.weight', expected shape \(8, 3, 1, 1\)"),
        ("layer.bias", np.zeros(9, np.float32), r"layer.*\(9,\), expected \(8,\)"),
        ("layer.bias", np.full(8, np.nan, np.float32), "layer.*NaN"),
        ("places.index", np.zeros(8, np.int32), "places.*rise strictly"),
        ("places.index", np.arange(2, 10, dtype=np.int32), "places.*rise strictly"),
    ]:
        bad = {key: array for key, array in (good | {name: value}).items() if array is not None}
        with pytest.raises(InvalidGraph, match=message):
            build(graph, tmp_path, weights=bad)


def test_a_target_that_llvm_does_not_know_names_the_layer(tmp_path: Path) -> None:
    graph = chain((4, 4, 3), Conv2d("layer", (), filters=8))
    target = replace(host_target(), triple="nonsense-unknown-none", mcpu="nonsense")
    with pytest.raises(CompileError, match="layer"):
        compile_network(graph, target=target, out_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_the_device_cannot_hold_is_refused(seed: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match=f"got {seed}"):
        build(chain((2, 2, 3), Conv2d("c", (), filters=8)), tmp_path, seed=seed)


def test_names_of_layers_may_hold_anything(tmp_path: Path) -> None:
    graph = chain((2, 2, 3), Conv2d('a "quoted" \\ name?\n%s µ1', (), filters=8))
    build(graph, tmp_path)


def test_more_memory_than_a_device_gives_is_refused(tmp_path: Path) -> None:
    wide = chain((8000, 8000, 3), Conv2d("wide", (), filters=32))
    with pytest.raises(InvalidGraph, match=r"take \d+\.\d GiB, at most 4 are compiled"):
        build(wide, tmp_path)
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").iterdir())
