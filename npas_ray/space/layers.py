"""What one layer of a search space can become: the rules of nature and of the user, enumerated once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from npas_ray.errors import SpaceError
from npas_ray.space.allowed import Allowed
from npas_ray.space.choices import LayerChoice, Operator, Scheme
from npas_ray.space.legality import Place, kept, plain, why_impossible
from npas_ray.space.steps import near_choices


@dataclass(frozen=True)
class Layer:
    """A place, what is allowed there, and the distinct networks that it can become."""

    place: Place
    allowed: Allowed
    choices: tuple[LayerChoice, ...]  # one for each distinct network, in a fixed order
    representative: Mapping[LayerChoice, LayerChoice]  # every allowed and possible choice -> the one that stands for it
    left_out: Mapping[LayerChoice, str] = field(default_factory=dict)  # equal to a legal choice, but why it is none

    @cached_property
    def position(self) -> Mapping[LayerChoice, int]:
        """Where each of the choices stands."""
        return {choice: index for index, choice in enumerate(self.choices)}

    @cached_property
    def near(self) -> tuple[tuple[int, ...], ...]:
        """For each choice the positions of those one small step away."""
        return near_choices(self.choices)

    def without(self, reasons: Mapping[LayerChoice, str]) -> Layer:
        """This without some of its choices, and why. Raises SpaceError if none would be left."""
        choices = tuple(choice for choice in self.choices if choice not in reasons)
        if not choices:
            raise SpaceError(f"layer {self.place.name!r} would be left without a choice")
        gone = {choice: reasons[stands] for choice, stands in self.representative.items() if stands in reasons}
        stay = {choice: stands for choice, stands in self.representative.items() if stands not in reasons}
        return replace(self, choices=choices, representative=stay, left_out={**self.left_out, **gone})


def enumerate_layer(place: Place, allowed: Allowed) -> Layer:
    """Enumerate what a place can become. Raises SpaceError if it can become nothing."""
    operators = (Operator.FC,) if place.block is None else allowed.operators
    # Without repetition and in a fixed order: schemes in the enum's, rates ascending, so the first of equals stands.
    candidates = dict.fromkeys(
        plain(LayerChoice(operator, scheme, rate))
        for operator, scheme, rate in itertools.product(operators, Scheme, allowed.rates)
        if rate == 1 or operator is Operator.SKIP or scheme in allowed.schemes
    )
    first: dict[object, LayerChoice] = {}
    representative = {}
    reasons = []
    for choice in candidates:
        reason = why_impossible(place, choice) or why_not_allowed(allowed, choice)
        if reason is None:
            representative[choice] = first.setdefault(kept(place, choice), choice)
        else:
            reasons.append(f"{choice}: {reason}")
    if not first:
        raise SpaceError(
            f"layer {place.name!r} has no legal choice; "
            + ("; ".join(reasons[:3]) if reasons else "its operators, schemes and rates do not meet")
        )
    return Layer(place, allowed, tuple(first.values()), representative)


def why_not_allowed(allowed: Allowed, choice: LayerChoice) -> str | None:
    """Whether the user's lists hold it. A skip needs no scheme and no rate, dense no scheme."""
    if choice.operator not in (*allowed.operators, Operator.FC):
        return f"operator {choice.operator.value!r} is not among {', '.join(allowed.operators)}"
    if choice.operator is Operator.SKIP:
        return None
    if choice.scheme not in (*allowed.schemes, Scheme.DENSE):
        return f"scheme {choice.scheme.value!r} is not among {', '.join(allowed.schemes)}"
    if choice.rate not in allowed.rates:
        return f"rate {choice.rate:g} is not among {', '.join(f'{rate:g}' for rate in allowed.rates)}"
    return None
