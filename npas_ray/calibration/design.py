"""Which candidates to measure, so that every choice of every layer is timed inside whole networks. Pure."""

from __future__ import annotations

import numpy as np

from npas_ray.space.choices import Architecture, LayerChoice
from npas_ray.space.search_space import SearchSpace

#: how often every choice of the layer with most choices is measured, each time among others
ROUNDS = 3


def default_count(space: SearchSpace) -> int:
    """Candidates of a calibration, if nobody says otherwise."""
    return max(8, ROUNDS * max(len(space.choices(layer)) for layer in range(space.layers)))


def design(space: SearchSpace, count: int, *, seed: int) -> tuple[Architecture, ...]:
    """At most `count` candidates, in which every layer has each of its choices equally often (but for one).

    Which choices of different layers meet is drawn from `seed`. Repetitions, of small spaces, are left out. A larger
    design begins with the smaller one, so that a calibration that is asked for more keeps what it has.
    """
    columns: list[list[LayerChoice]] = []
    for layer in range(space.layers):
        rng = np.random.default_rng([seed, layer])
        choices = space.choices(layer)
        rounds = [rng.permutation(len(choices)) for _ in range(-(-count // len(choices)))]
        columns.append([choices[index] for index in np.concatenate(rounds)[:count]])
    return tuple(dict.fromkeys(Architecture(layers) for layers in zip(*columns, strict=True)))
