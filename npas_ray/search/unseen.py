"""Architectures that nobody has tried yet, and the certainty that there are none left."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

import numpy as np

from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

#: random draws for each architecture that is wanted before the space is walked systematically
_DRAWS = 20


def unseen(
    space: SearchSpace, *, known: Collection[Architecture], count: int, rng: np.random.Generator
) -> list[Architecture]:
    """Up to `count` random architectures of the space that are not in `known`; fewer only if there are no more.

    Draws at random; where that meets known ones too often, takes what comes in a walk over the whole space that starts
    anywhere. Every step of the walk is another architecture, so it ends after `len(known) + count` steps at most.
    """
    wanted = min(count, space.size - sum(architecture in space for architecture in known))
    found: dict[Architecture, None] = {}
    draws = (space.sample(rng) for _ in range(_DRAWS * wanted))
    for architecture in itertools.chain(draws, _walk(space, rng)):
        if len(found) >= wanted:
            break
        if architecture not in known:
            found[architecture] = None
    return list(found)


def _walk(space: SearchSpace, rng: np.random.Generator) -> Iterator[Architecture]:
    """Every architecture once, from a random one onwards."""
    choices = [space.choices(layer) for layer in range(space.layers)]
    starts = [int(rng.integers(len(of_layer))) for of_layer in choices]
    turned = [(*of[start:], *of[:start]) for of, start in zip(choices, starts, strict=True)]
    return (Architecture(layers) for layers in itertools.product(*turned))
