"""Leaves out of a space what a calibration found to be slower than dense. Pure.

Such a point can only lose: it is as slow as more of the network would be. It is left out where it is slower on every
device of the search, and never so that a layer has no choice any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_farm.calibration.breakeven import Point
from npas_ray.space.choices import LayerChoice
from npas_ray.space.search_space import SearchSpace


@dataclass(frozen=True)
class LeftOut:
    """What became of a space. `spared` layers would have been left without a choice, and keep all of them."""

    points: tuple[Point, ...]
    spared: tuple[str, ...]
    choices_before: int
    choices_after: int

    def __str__(self) -> str:
        if not self.points:
            return f"nothing is slower than dense; all {self.choices_before} choices stay"
        lines = [f"{len(self.points)} of {self.choices_before} choices are slower than dense and left out:"]
        lines += [f"  {point}" for point in self.points]
        lines += [f"  {name} keeps all of its choices, as every one of them is slower" for name in self.spared]
        return "\n".join(lines)


def leave_out(space: SearchSpace, slower: Mapping[tuple[str, str], Point]) -> tuple[SearchSpace, LeftOut]:
    """The space without its points (layer, choice) that are slower, and the report."""
    reasons: dict[str, dict[LayerChoice, str]] = {}
    points: list[Point] = []
    spared: list[str] = []
    for layer, name in enumerate(space.layer_names):
        found = {c: slower[name, str(c)] for c in space.choices(layer) if (name, str(c)) in slower}
        if len(found) == len(space.choices(layer)):
            spared.append(name)
        elif found:
            reasons[name] = {choice: f"it is slower than {point.against}: {point}" for choice, point in found.items()}
            points += found.values()
    before = sum(len(space.choices(layer)) for layer in range(space.layers))
    report = LeftOut(tuple(points), tuple(spared), before, before - len(points))
    return space.without(reasons), report
