from __future__ import annotations

import numpy as np
import pytest

from npas_ray.errors import SpaceError
from npas_ray.networks.backbone import DIGITS, make_backbone
from npas_ray.space.labelled_graph import labelled_graph
from npas_ray.space.search_space import SearchSpace

FRAME = make_backbone(
    "small", input_shape=(3, 8, 8), stem=(16, 1), blocks=((16, 1), (16, 1), (32, 2)), classes=10, searchable_head=True
)
SPACE = SearchSpace(FRAME)


def test_operators_expand_into_their_convolutions() -> None:
    texts = ["1x1+3x3dw+1x1/block-based@3", "skip", "3x3/pattern@5", "fc/block-based@2"]
    graph = labelled_graph(FRAME, SPACE.parse(texts))
    assert graph.labels == (
        "input", "stem",
        "1x1/block-based@3", "3x3dw", "1x1/block-based@3", "add",
        "skip",
        "3x3/pattern@5", "resize", "add",
        "pool", "fc/block-based@2", "output",
    )  # fmt: skip
    assert graph.layers == (None, None, 0, 0, 0, 0, 1, 2, 2, 2, None, 3, None)
    assert graph.predecessors == ((), (0,), (1,), (2,), (3,), (1, 4), (5,), (6,), (6,), (7, 8), (9,), (10,), (11,))
    assert graph.successors[1] == (2, 5)
    assert graph.neighbours[5] == (1, 4, 6)


def test_filter_pruning_marks_the_depthwise_part_of_an_inverted_residual() -> None:
    graph = labelled_graph(FRAME, SPACE.parse(["1x1+3x3dw+1x1/filter@3", "3x3dw+1x1/filter@3", "3x3", "fc"]))
    assert graph.labels[2:8] == ("1x1/filter@3", "3x3dw/filter@3", "1x1/filter@3", "add", "3x3dw", "1x1/filter@3")


def test_graphs_are_connected_ordered_and_tell_architectures_apart() -> None:
    rng = np.random.default_rng(0)
    space = SearchSpace(DIGITS)
    architectures = {space.sample(rng) for _ in range(200)}
    graphs = set()
    for architecture in architectures:
        graph = labelled_graph(DIGITS, architecture)
        assert len(graph.labels) == len(graph.layers) and all(type(label) is str for label in graph.labels)
        assert all(a < b for a, b in graph.edges) and len(set(graph.edges)) == len(graph.edges)
        assert [not p for p in graph.predecessors] == [True] + [False] * (len(graph.labels) - 1)
        assert [not s for s in graph.successors] == [False] * (len(graph.labels) - 1) + [True]
        assert {layer for layer in graph.layers if layer is not None} == set(range(7))
        graphs.add(graph)
    assert len(graphs) == len(architectures)


def test_an_architecture_of_another_length_is_refused() -> None:
    with pytest.raises(SpaceError, match="has 4 layers, got 3"):
        labelled_graph(
            FRAME, type(SPACE.parse(["3x3", "3x3", "3x3", "fc"]))(SPACE.parse(["3x3"] * 3 + ["fc"]).layers[:3])
        )
