"""What a race of policies says: means, quartiles, paired differences, and whether the bars of issue 5 are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._landscapes import Floats

OURS, PAPER, SUFFIX = "npas", "paper", "+predictor"
Bar = dict[str, Any]


@dataclass(frozen=True)
class Standings:
    """`scores[policy]` are regrets in points (less is better), or with `front` hypervolumes: `[seeds, checkpoints]`."""

    landscape: str
    checkpoints: Sequence[int]
    scores: Mapping[str, Floats]
    propose_ms: Mapping[str, Sequence[float]]
    front: bool = False

    def mean(self, policy: str, checkpoint: int) -> float:
        return float(self.scores[policy][:, self.checkpoints.index(checkpoint)].mean())

    def best(self, policies: Sequence[str], checkpoint: int) -> str:
        """The one with the best mean."""
        sign = -1 if self.front else 1
        return min(policies, key=lambda policy: sign * self.mean(policy, checkpoint))

    def others(self, ours: str) -> list[str]:
        """Other policies that are told as much of latencies."""
        told = ours.endswith(SUFFIX)
        return [p for p in self.scores if p.removesuffix(SUFFIX) != OURS and p.endswith(SUFFIX) == told]

    def lead(self, ours: str, other: str, checkpoint: int) -> tuple[float, float, float]:
        """By how much ours is better, mean of the paired differences, and its 95 % interval by bootstrap."""
        column = self.checkpoints.index(checkpoint)
        difference = (self.scores[other] - self.scores[ours])[:, column] * (-1 if self.front else 1)
        picks = np.random.default_rng(0).integers(len(difference), size=(4000, len(difference)))
        low, high = np.quantile(difference[picks].mean(axis=1), [0.025, 0.975])
        return float(difference.mean()), float(low), float(high)

    def series(self) -> dict[str, list[tuple[float, float]]]:
        """For a plot; ours is named so."""
        named = {policy: f"ours: {policy}" if policy.startswith(OURS) else policy for policy in self.scores}
        return {
            named[policy]: [(float(c), float(table[:, i].mean())) for i, c in enumerate(self.checkpoints)]
            for policy, table in self.scores.items()
        }

    def __str__(self) -> str:
        kind = "hypervolume, % of the box" if self.front else "regret in points"
        seeds = len(next(iter(self.scores.values())))
        head = f"{'searcher':24}" + "".join(f"{f'after {c}':>22}" for c in self.checkpoints) + f"{'CPU ms/cand.':>14}"
        rows = [f"\n{self.landscape}: {kind}, mean (quartiles) of {seeds} seeds", head]
        sign = -1 if self.front else 1
        for policy in sorted(self.scores, key=lambda policy: sign * float(self.scores[policy].mean())):
            cells = []
            for column in self.scores[policy].T:
                low, high = np.quantile(column, [0.25, 0.75])
                cells.append(f"{column.mean():7.2f} ({low:5.2f}-{high:5.2f})")
            cost_ms = float(np.median(self.propose_ms[policy]))
            rows.append(f"{policy:24}" + "".join(f"{cell:>22}" for cell in cells) + f"{cost_ms:14.1f}")
        for ours in (OURS + SUFFIX, OURS):
            others = self.others(ours) if ours in self.scores else []
            for checkpoint in self.checkpoints if others else ():
                other = self.best(others, checkpoint)
                mean, low, high = self.lead(ours, other, checkpoint)
                rows.append(f"  {ours} leads {other} at {checkpoint} by {mean:.2f} ({low:.2f} to {high:.2f})")
        return "\n".join(rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "checkpoints": list(self.checkpoints),
            "scores": {policy: np.round(table, 4).tolist() for policy, table in self.scores.items()},
            "propose_ms": {policy: float(np.median(costs)) for policy, costs in self.propose_ms.items()},
        }


def bars(standings: Standings, *, own: bool) -> list[Bar]:
    """Of regrets; `own` is the embedded task's table, which has the highest ones."""
    made = []
    for ours in (OURS + SUFFIX, OURS):
        others = standings.others(ours) if ours in standings.scores else []
        if not others:
            continue
        if own:
            made += _of_own_table(standings, ours, others)
            continue
        for checkpoint in (c for c in (50, 100) if c in standings.checkpoints):
            other = standings.best(others, checkpoint)
            mine, theirs = standings.mean(ours, checkpoint), standings.mean(other, checkpoint)
            made.append(
                _bar(standings, f"{ours} first at {checkpoint}: {mine:.2f}, {other} {theirs:.2f}", mine <= theirs)
            )
    return made


def _of_own_table(standings: Standings, ours: str, others: Sequence[str]) -> list[Bar]:
    made = []
    if 100 in standings.checkpoints:
        mine = standings.mean(ours, 100)
        for paper in (policy for policy in standings.scores if policy == PAPER):
            theirs = standings.mean(paper, 100)
            words = f"{ours} at 100 at most a quarter of {paper}: {mine:.2f}, {theirs:.2f} ({mine / theirs:.0%})"
            made.append(_bar(standings, words, mine <= theirs / 4))
        other = standings.best(others, 100)
        theirs = standings.mean(other, 100)
        words = f"{ours} at 100 at most half of the best other, {other}: {mine:.2f}, {theirs:.2f} ({mine / theirs:.0%})"
        made.append(_bar(standings, words, mine <= theirs / 2))
    if 200 in standings.checkpoints:
        mine, other = standings.mean(ours, 50), standings.best(others, 200)
        theirs = standings.mean(other, 200)
        words = f"{ours} at 50 below every other at 200: {mine:.2f}, {other} {theirs:.2f}"
        made.append(_bar(standings, words, mine < theirs))
    return made


def front_bars(standings: Standings, *, own: bool) -> list[Bar]:
    """Of hypervolumes, the same everywhere."""
    made = []
    for ours in (policy for policy in (OURS + SUFFIX, OURS) if policy in standings.scores):
        others = standings.others(ours)
        for checkpoint in (c for c in (100, 200) if c in standings.checkpoints and others):
            other = standings.best(others, checkpoint)
            mine, theirs = standings.mean(ours, checkpoint), standings.mean(other, checkpoint)
            words = f"{ours} has the largest hypervolume at {checkpoint}: {mine:.2f} %, {other} {theirs:.2f} %"
            made.append(_bar(standings, words, mine >= theirs))
    return made


def _bar(standings: Standings, words: str, met: bool) -> Bar:
    return {"landscape": standings.landscape, "words": f"{standings.landscape}: {words}", "met": bool(met)}
