"""Architectures as rows of small integers, so that numpy can do a policy's arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from npas_ray.errors import SpaceError
from npas_ray.space.choices import Architecture, LayerChoice
from npas_ray.space.search_space import SearchSpace

IntArray = NDArray[np.int64]

#: columns of a table below which making a sparse matrix costs more than it saves
_NARROW = 32


class Encoding:
    """Row `[L]` of an architecture: the index of each layer's choice in `choices[layer]`.

    Attributes:
        choices: the choices of every layer, in the space's order.
        sizes: their numbers, `[L]`.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.choices: tuple[tuple[LayerChoice, ...], ...] = tuple(
            tuple(space.choices(layer)) for layer in range(space.layers)
        )
        self.sizes: IntArray = np.array([len(choices) for choices in self.choices], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])  # of each layer in a table of all choices
        self._index = [{choice: i for i, choice in enumerate(choices)} for choices in self.choices]

    @property
    def layers(self) -> int:
        return len(self.choices)

    def encode(self, architectures: Iterable[Architecture]) -> IntArray:
        """Rows `[n, L]`. Raises SpaceError for a choice that the layer does not have."""
        rows = []
        for architecture in architectures:
            if len(architecture.layers) != self.layers:
                raise SpaceError(
                    f"an architecture of this space has {self.layers} layers, got {len(architecture.layers)}"
                )
            try:
                rows.append([index[choice] for index, choice in zip(self._index, architecture.layers, strict=True)])
            except KeyError as error:
                raise SpaceError(f"{error.args[0]} is no choice of its layer in {architecture.to_json()}") from None
        return np.array(rows, dtype=np.int64).reshape(-1, self.layers)

    def sums(self, rows: IntArray, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the layers of rows `[m, L]` of what a table says of their choices: `[m, d]`.

        The table is `[K, d]`, where K is the number of all layers' choices, one layer after another. A row's sums are
        the same to the last bit, whatever rows are asked for together.
        """
        m, layers = rows.shape
        places = rows + self._starts
        if table.shape[1] < _NARROW:
            return np.asarray(table[places].sum(axis=1))
        ends = np.arange(0, m * layers + 1, layers)
        one_hot = csr_array((np.ones(m * layers), places.ravel(), ends), shape=(m, len(table)))
        return np.asarray(one_hot @ table)

    def decode(self, row: IntArray) -> Architecture:
        """Inverse of `encode` for one row `[L]`."""
        return Architecture(tuple(choices[i] for choices, i in zip(self.choices, row.tolist(), strict=True)))
