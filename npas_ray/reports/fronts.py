"""The front over all axes of a run in mode front, and how much of the box it dominates. From the journal alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from device_farm.compiler.sparsity import TapUnit
from device_farm.compiler.target import TARGETS
from npas_ray.journal import Candidate
from npas_ray.networks.backbone import BACKBONES
from npas_ray.networks.costs import NetworkCosts
from npas_ray.search.axes import ENERGY, SIZE, label_of, model_of
from npas_ray.search.hypervolume import hypervolume, nondominated
from npas_ray.search.reward import Mode, Objective


@dataclass(frozen=True)
class WholeFront:
    """What a run in mode front found. `concluded` are its candidates in the order of their conclusions."""

    objective: Objective
    concluded: Sequence[Candidate]

    @property
    def axes(self) -> tuple[str, ...]:
        """Beside the accuracy."""
        return self.objective.axes

    def cost(self, candidate: Candidate, axis: str) -> float | None:
        """Of a candidate on an axis, in its unit; None if it was not measured."""
        return self.objective.cost(axis, candidate.architecture, candidate.latency_ms)

    @cached_property
    def _points(self) -> list[tuple[int, Candidate, tuple[float, ...]]]:
        """(number of its conclusion from 1, candidate, point) of all that can be on a front."""
        points = ((i, c, self.objective.point(c.observation())) for i, c in enumerate(self.concluded, start=1))
        return [(index, candidate, point) for index, candidate, point in points if point is not None]

    @cached_property
    def members(self) -> list[Candidate]:
        """Candidates that no other one beats in accuracy and every axis, cheapest on the first axis first."""
        kept = nondominated([point for _, _, point in self._points])
        found = [(point[1:], c) for (_, c, point), on in zip(self._points, kept, strict=True) if on]
        return [candidate for _, candidate in sorted(found, key=lambda item: (item[0], item[1].ordinal))]

    @cached_property
    def curve(self) -> list[tuple[int, float]]:
        """(conclusions, hypervolume): where it grew. Accuracies are those that the candidates have by now."""
        steps: list[tuple[int, float]] = []
        front: list[tuple[float, ...]] = []
        for index, _, point in self._points:
            front.append(point)
            front = [p for p, on in zip(front, nondominated(front), strict=True) if on]
            if point in front and (volume := self._volume(front)) > (steps[-1][1] if steps else 0.0):
                steps.append((index, volume))
        return steps

    @property
    def hypervolume(self) -> float:
        """The share of the box up to the reference that the front dominates, in [0, 1]."""
        return self._volume([point for _, _, point in self._points])

    def _volume(self, points: Sequence[tuple[float, ...]]) -> float:
        return hypervolume(points, (1.0,) * (1 + len(self.axes)))

    @property
    def compromise(self) -> Candidate | None:
        """The member that alone dominates most of the box: what is shipped, unless another one is chosen."""
        found = [c for _, c, _ in self._points]
        return max(found, key=lambda c: (self.objective.reward(c.observation()) or 0.0, -c.ordinal), default=None)

    @property
    def reference(self) -> dict[str, float]:
        """The cost by axis from which on a candidate adds nothing."""
        return {axis: self.objective.reference_of(axis) or 0.0 for axis in self.axes}

    def describe(self) -> str:
        """hypervolume 0.6120 of the box up to accuracy 0 at 0.05 ms on local and 1234 kB"""
        ends = [
            f"{said_cost(axis, end)}{f' on {model}' if (model := model_of(axis)) else ''}"
            for axis, end in self.reference.items()
        ]
        proxy = " (energy is a proxy)" if ENERGY in self.axes else ""
        return f"hypervolume {self.hypervolume:.4f} of the box up to accuracy 0 at {' and '.join(ends)}{proxy}"

    def summary(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "axes": list(self.axes),
            "reference": self.reference,
            "hypervolume": self.hypervolume,
            "curve": [list(step) for step in self.curve],
            "members": [
                {"ordinal": c.ordinal, "key": c.key, "accuracy": c.accuracy}
                | {axis: self.cost(c, axis) for axis in self.axes}
                for c in self.members
            ],
        }


def said_cost(axis: str, cost: float) -> str:
    """A cost with its unit.

    >>> said_cost("size", 123_400.0), said_cost("energy", 5.61), said_cost("latency:local", 0.0712)
    ('123.4 kB', '5.61 µJ', '0.0712 ms')
    """
    if axis == SIZE:
        return f"{cost / 1000:.1f} kB"
    return f"{cost:.4g} {'µJ' if axis == ENERGY else 'ms'}"


def title_of(axis: str) -> str:
    """Heading of a column or an axis of a chart, with its unit."""
    unit = {SIZE: "kB", ENERGY: "µJ"}.get(axis, "ms")
    return f"{label_of(axis)}, {unit}"


def whole_front(
    note: Mapping[str, Any],
    *,
    backbone: str,
    budgets_ms: Mapping[str, float],
    certainty: float,
    concluded: Sequence[Candidate],
) -> WholeFront | None:
    """From the journal's note of a front; None where the note is of no run in mode front, or of another version."""
    try:
        costs = NetworkCosts(
            BACKBONES[backbone],
            block_height=int(note["block_height"]),
            tap_unit=TapUnit(note["tap_unit"]),
            targets=tuple(TARGETS[name] for name in note["targets"]),
        )
        objective = Objective(
            budgets_ms,
            mode=Mode.FRONT,
            axes=tuple(note["axes"]),
            reference=note["reference"],
            costs=costs,
            certainty=certainty,
        )
    except (KeyError, ValueError, TypeError):
        return None
    return WholeFront(objective, concluded)
