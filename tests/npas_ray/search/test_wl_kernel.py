from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npas_ray.networks.backbone import DIGITS
from npas_ray.search.wl_kernel import WLKernel, wl_features
from npas_ray.space.labelled_graph import LabelledGraph, labelled_graph
from npas_ray.space.search_space import SearchSpace


@st.composite
def graphs(draw: st.DrawFn) -> LabelledGraph:
    size = draw(st.integers(1, 7))
    labels = tuple(draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size)))
    possible = [(i, j) for i in range(size) for j in range(i + 1, size)]
    edges = tuple(sorted(draw(st.sets(st.sampled_from(possible))))) if possible else ()
    return LabelledGraph(labels, (None,) * size, edges)


def _subtrees(graph: LabelledGraph, depth: int) -> Counter[object]:
    """All rooted label trees of exactly `depth`, written out: the reference without hashing."""

    def tree(node: int, left: int) -> object:
        if left == 0:
            return graph.labels[node]
        below = sorted((tree(source, left - 1) for source, target in graph.edges if target == node), key=repr)
        return (tree(node, left - 1), tuple(below))

    return Counter(tree(node, depth) for node in range(len(graph.labels)))


def _reference(a: LabelledGraph, b: LabelledGraph, depth: int) -> float:
    def dot(x: LabelledGraph, y: LabelledGraph) -> int:
        total = 0
        for level in range(depth + 1):
            mine, theirs = _subtrees(x, level), _subtrees(y, level)
            total += sum(count * theirs[key] for key, count in mine.items())
        return total

    return dot(a, b) / float(np.sqrt(dot(a, a) * dot(b, b)))


def _kernel(some: list[LabelledGraph], depth: int) -> tuple[WLKernel, list[Any]]:
    """A kernel over graphs whose architectures are their places in the list."""
    graph_of: Callable[[Any], LabelledGraph] = some.__getitem__
    return WLKernel(graph_of, depth=depth), list(range(len(some)))


@given(st.lists(graphs(), min_size=1, max_size=6), st.integers(0, 3))
@settings(max_examples=60)
def test_equals_brute_force_and_is_psd(some: list[LabelledGraph], depth: int) -> None:
    kernel, names = _kernel(some, depth)
    grams = kernel.grams(names)
    for level, gram in enumerate(grams):
        expected = [[_reference(a, b, level) for b in some] for a in some]
        np.testing.assert_allclose(gram, expected, rtol=1e-12)
        assert np.linalg.eigvalsh(gram).min() > -1e-9
        np.testing.assert_allclose(np.diag(gram), 1.0)


@given(graphs(), st.randoms(use_true_random=False), st.integers(0, 3))
@settings(max_examples=60)
def test_does_not_depend_on_the_order_of_nodes(graph: LabelledGraph, random: Random, depth: int) -> None:
    order = list(range(len(graph.labels)))
    random.shuffle(order)
    place = {node: position for position, node in enumerate(order)}
    shuffled = LabelledGraph(
        tuple(graph.labels[node] for node in order),
        (None,) * len(order),
        tuple(sorted((place[a], place[b]) for a, b in graph.edges)),
    )
    for mine, theirs in zip(wl_features(graph, depth=depth), wl_features(shuffled, depth=depth), strict=True):
        assert mine[0].tolist() == theirs[0].tolist()
        assert mine[1].tolist() == theirs[1].tolist()


def test_direction_and_depth_tell_graphs_apart() -> None:
    a = LabelledGraph(("x", "y", "x"), (None,) * 3, ((0, 1), (1, 2)))
    b = LabelledGraph(("y", "x", "x"), (None,) * 3, ((0, 1), (1, 2)))
    kernel, names = _kernel([a, b], 2)
    grams = kernel.grams(names)
    assert grams[0][0, 1] == pytest.approx(1.0)
    assert grams[2][0, 1] < grams[1][0, 1] < 1


def test_grams_of_real_candidates_do_not_depend_on_what_was_seen() -> None:
    space, rng = SearchSpace(DIGITS), np.random.default_rng(0)
    some = [space.sample(rng) for _ in range(30)]
    fresh = WLKernel(lambda a: labelled_graph(DIGITS, a), depth=2)
    used = WLKernel(lambda a: labelled_graph(DIGITS, a), depth=2, cache=7)
    used.gram([space.sample(rng) for _ in range(40)])
    assert (fresh.gram(some) == used.gram(some[::-1])[::-1, ::-1]).all()
    assert (fresh.gram(some[:5], some) == fresh.gram(some)[:5]).all()
    assert fresh.gram([], some).shape == (0, 30)


def test_refuses_a_negative_depth() -> None:
    with pytest.raises(ValueError, match="depth"):
        WLKernel(lambda a: labelled_graph(DIGITS, a), depth=-1)
