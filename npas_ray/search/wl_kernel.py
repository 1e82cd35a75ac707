"""The Weisfeiler-Lehman subtree kernel on the labelled graphs of networks (wl, nas-bowl).

A node's label of level 0 is its own; its label of level h is (label of level h - 1, sorted labels of level h - 1 of
the nodes that feed it). The feature vector counts labels of all levels up to the depth; the kernel is the dot product
of two such vectors, normalised to 1 for equal graphs. It depends on the graph, not on the order of its nodes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from npas_ray.space.choices import Architecture
from npas_ray.space.labelled_graph import LabelledGraph

Floats = NDArray[np.float64]
#: per level: hashes of the labels and how often each occurs
Features = tuple[tuple[NDArray[np.uint64], Floats], ...]


def _hash(text: str) -> int:
    """64 bits that are the same in every process: features never depend on what was seen before."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def wl_features(graph: LabelledGraph, *, depth: int) -> Features:
    """Labels with their counts at levels 0..depth of one graph."""
    labels = [_hash(label) for label in graph.labels]
    levels = []
    for level in range(depth + 1):
        if level:
            labels = [
                _hash(f"{own}<{','.join(map(str, sorted(labels[source] for source in sources)))}")
                for own, sources in zip(labels, graph.predecessors, strict=True)
            ]
        counts = Counter(labels)
        ids = sorted(counts)
        levels.append((np.array(ids, dtype=np.uint64), np.array([float(counts[i]) for i in ids])))
    return tuple(levels)


class WLKernel:
    """Gram matrices over architectures, for every depth from 0 to `depth`; features are kept per architecture.

    Args:
        graph_of: the labelled graph of an architecture.
        depth: of the deepest subtrees, >= 0; nas-bowl uses 1 and 2.
        cache: number of architectures whose features are kept.
    """

    def __init__(
        self, graph_of: Callable[[Architecture], LabelledGraph], *, depth: int = 2, cache: int = 20_000
    ) -> None:
        if depth < 0:
            raise ValueError(f"depth is at least 0, got {depth!r}")
        self.depth = depth
        self._graph_of = graph_of
        self._cache: dict[Architecture, Features] = {}
        self._cache_size = cache

    def features(self, architecture: Architecture) -> Features:
        """See `wl_features`."""
        found = self._cache.get(architecture)
        if found is None:
            if len(self._cache) >= self._cache_size:
                self._cache.clear()
            found = self._cache[architecture] = wl_features(self._graph_of(architecture), depth=self.depth)
        return found

    def grams(self, left: Sequence[Architecture], right: Sequence[Architecture] | None = None) -> list[Floats]:
        """Kernel matrices `[len(left), len(right)]` of depth 0, 1, ..., `depth`; `right` is `left` if not given.

        Counts are whole numbers, so their products are exact in whatever order they are added.
        """
        rows = [self.features(architecture) for architecture in left]
        others = rows if right is None else [self.features(architecture) for architecture in right]
        product = np.zeros((len(rows), len(others)))
        own, other = np.zeros(len(rows)), np.zeros(len(others))
        grams = []
        for level in range(self.depth + 1):
            a, b = _count_matrices([row[level] for row in rows], [row[level] for row in others])
            product = product + (a @ b.T).toarray()
            own = own + np.asarray(a.multiply(a).sum(axis=1)).ravel()
            other = other + np.asarray(b.multiply(b).sum(axis=1)).ravel()
            norm = np.sqrt(np.maximum(np.outer(own, other), 1.0))
            grams.append(product / norm)
        return grams

    def gram(self, left: Sequence[Architecture], right: Sequence[Architecture] | None = None) -> Floats:
        """The kernel matrix of the full depth."""
        return self.grams(left, right)[-1]


def _count_matrices(
    left: Sequence[tuple[NDArray[np.uint64], Floats]], right: Sequence[tuple[NDArray[np.uint64], Floats]]
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Counts as sparse rows over the labels that occur on either side."""
    both = [*left, *right]
    if not both:
        return sparse.csr_array((0, 1)), sparse.csr_array((0, 1))
    vocabulary, columns = np.unique(np.concatenate([ids for ids, _ in both]), return_inverse=True)
    bounds = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in both])])
    values = np.concatenate([counts for _, counts in both])
    matrix = sparse.csr_array((values, columns, bounds), shape=(len(both), max(len(vocabulary), 1)))
    return matrix[: len(left)], matrix[len(left) :]
