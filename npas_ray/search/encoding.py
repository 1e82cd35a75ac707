"""Architectures as rows of small integers, so that numpy can do a policy's arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from npas_ray.errors import SpaceError
from npas_ray.space.choices import Architecture, LayerChoice
from npas_ray.space.search_space import SearchSpace

IntArray = NDArray[np.int64]


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

    def decode(self, row: IntArray) -> Architecture:
        """Inverse of `encode` for one row `[L]`."""
        return Architecture(tuple(choices[i] for choices, i in zip(self.choices, row.tolist(), strict=True)))
