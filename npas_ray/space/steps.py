"""Which choices of one layer are a small step apart: what local search and mutation walk on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

from npas_ray.space.choices import LayerChoice, Operator, Scheme


def nearest_choice(wanted: LayerChoice, choices: Sequence[LayerChoice]) -> LayerChoice:
    """The nearest of the choices: by operator, then scheme, then rate. `wanted` may be nonsense."""

    def gap(choice: LayerChoice) -> tuple[bool, bool, float]:
        different = choice.operator != wanted.operator, choice.scheme != wanted.scheme
        return *different, _rate_gap(choice, wanted) if 0 < wanted.rate < math.inf else 0.0

    return min(choices, key=gap)


def near_choices(choices: Sequence[LayerChoice]) -> tuple[tuple[int, ...], ...]:
    """For each choice of a layer the positions of those one step away, ascending.

    A step changes one thing: the rate to the next one that the scheme has (dense is rate 1 of every scheme), the
    scheme at the same operator, or the operator. A scheme or operator that lacks the rest of the choice takes the
    nearest that it has, by rate. Steps go both ways, and every choice can be reached from every other.

    A skip has neither scheme nor rate to keep: every choice can step to it, and from it steps lead to both ends of
    every operator's and scheme's rates, that is to what costs most and what costs least.
    """
    position = {choice: index for index, choice in enumerate(choices)}
    near: list[set[int]] = [set() for _ in choices]
    skips = [choice for choice in choices if choice.operator is Operator.SKIP]
    others = [choice for choice in choices if choice.operator is not Operator.SKIP]
    for choice in others:
        for other in _steps(choice, others):
            near[position[choice]].add(position[other])
            near[position[other]].add(position[choice])
        near[position[choice]].update(position[skip] for skip in skips)
    for skip in skips:
        near[position[skip]].update(position[choice] for choice in _ends(others))
    return tuple(tuple(sorted(indices)) for indices in near)


def _steps(choice: LayerChoice, choices: Sequence[LayerChoice]) -> Iterable[LayerChoice]:
    """Steps up in rate, across schemes and across operators; the ways back follow from symmetry."""
    for operator, of_operator in _grouped(choices).items():
        if operator is choice.operator:
            dense = of_operator.get(Scheme.DENSE, [])
            for scheme, rated in of_operator.items():
                if scheme is Scheme.DENSE:
                    continue
                yield from (upper for lower, upper in pairwise(dense + rated) if lower == choice)
                if choice.scheme not in (scheme, Scheme.DENSE):
                    yield from _nearest(choice, rated)
        else:
            every = [other for rated in of_operator.values() for other in rated]
            alike = [other for other in every if _family(other) is _family(choice) and other.rate == choice.rate]
            yield from alike or _nearest(choice, every)


def _ends(choices: Sequence[LayerChoice]) -> Iterable[LayerChoice]:
    """The lowest and the highest rate of every scheme of every operator; where dense exists it is the lowest."""
    for schemes in _grouped(choices).values():
        dense = schemes.pop(Scheme.DENSE, [])
        yield from dense
        for rated in schemes.values():
            yield rated[-1]
            if not dense:
                yield rated[0]


def _grouped(choices: Sequence[LayerChoice]) -> dict[Operator, dict[Scheme, list[LayerChoice]]]:
    """By operator and scheme, rates ascending."""
    return {
        operator: {scheme: list(rated) for scheme, rated in groupby(of_operator, key=lambda choice: choice.scheme)}
        for operator, of_operator in groupby(sorted(choices), key=lambda choice: choice.operator)
    }


def _family(choice: LayerChoice) -> Scheme:
    """What prunes columns of blocks is one way to prune, on different kernels."""
    return Scheme.BLOCK_BASED if choice.scheme in (Scheme.BLOCK_PUNCHED, Scheme.KERNEL_BLOCK) else choice.scheme


def _nearest(choice: LayerChoice, others: Sequence[LayerChoice]) -> list[LayerChoice]:
    """All of the others whose rate is nearest."""
    nearest = min(_rate_gap(choice, other) for other in others)
    return [other for other in others if _rate_gap(choice, other) <= nearest + 1e-9]


def _rate_gap(a: LayerChoice, b: LayerChoice) -> float:
    return abs(math.log(a.rate / b.rate))
