"""What a ladder of epochs is worth to a search: the best candidate after equal training time, with it and without.

    python benchmarks/ladder.py [--quick] [--seeds N] [--policy NAME ...] [--json FILE]

Searches on the table of the embedded task (benchmarks/tables): accuracy after one epoch and latency are the table's,
with its noise. Accuracy after no epoch is drawn: a curve through the architectures that were trained both ways, and
each architecture's own deviation from it, as large as theirs. Candidates over the latency budget are not trained. Time
is counted in trainings of one epoch; one without an epoch (prune, recalibrate, judge) costs --cheap of that. What is
compared is the noiseless accuracy of the policy's choice: the candidate that did best at the top rung. "met" is how
many candidates were compiled and measured for it, which costs time too, on the device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks._harness import finish, parser
from benchmarks._landscapes import CHANCE
from benchmarks.tables.landscape import Tabular
from benchmarks.tables.surrogate import expit, logit
from benchmarks.tables.table import EPOCHS, Table, load
from npas_ray.search.ladder import Climb, Ladder
from npas_ray.search.policy import Observation, Status
from npas_ray.search.registry import make_policy

CHECKPOINTS = (15, 30, 60)  # trainings of EPOCHS
FEASIBLE_SHARE = 0.3  # of random architectures that keep the budget
LADDERS = (Ladder((EPOCHS,)), Ladder((0, EPOCHS), keep=0.5), Ladder((0, EPOCHS), keep=0.25))


@dataclass(frozen=True)
class LowRung:
    """Accuracy without an epoch, given the one after EPOCHS: a parabola in logits, and what it leaves."""

    table: Table

    @cached_property
    def pairs(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of the architectures that were trained both ways, logits `[n, 2]`."""
        low, top = (self.table.columns.index((epochs, 0)) for epochs in (0, EPOCHS))
        known = self.table.evaluations[:, [low, top]]
        return np.asarray(logit(known[np.isfinite(known).all(axis=1)]))

    @cached_property
    def curve(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.polyfit(self.pairs[:, 1], self.pairs[:, 0], 2)

    @cached_property
    def deviation(self) -> float:
        return float(np.std(self.pairs[:, 0] - np.polyval(self.curve, self.pairs[:, 1])))

    def accuracy(self, row: np.ndarray[Any, Any], top: float) -> float:
        """The same for the same architecture, whoever asks."""
        rng = np.random.default_rng(list(row.astype(np.uint8)))
        return float(expit(np.polyval(self.curve, logit(np.array(top))) + rng.normal(0, self.deviation)))


def search(table: Table, policy_name: str, ladder: Ladder, seed: int, *, cheap: float) -> list[tuple[float, int]]:
    """(noiseless accuracy of the choice, candidates met) at each checkpoint."""
    landscape, low = Tabular(table, feasible_share=FEASIBLE_SHARE), LowRung(table)
    policy = make_policy(policy_name, landscape.space, landscape.objective, seed=seed)
    rng = np.random.default_rng([99, seed])
    climb, spent, met, measured, true = Climb(ladder), 0.0, 0, -1.0, CHANCE
    found: list[tuple[float, int]] = []
    while len(found) < len(CHECKPOINTS):
        batch = policy.propose(policy.batch_size)
        for architecture in batch:
            met += 1
            observation = landscape.evaluate(architecture, rng)
            if observation.accuracy is not None and observation.status is Status.DONE:
                top = landscape.true_value(architecture)
                row = landscape.encoding.encode([architecture])[0]
                rungs: dict[int, float] = {}
                while (rung := climb.next_rung(architecture.key)) is not None:
                    rungs[rung] = low.accuracy(row, top) if rung == 0 else observation.accuracy
                    spent += cheap if rung == 0 else 1.0
                    climb.record(architecture.key, epochs=rung, accuracy=rungs[rung])
                done = climb.is_finished(architecture.key)
                observation = Observation(
                    architecture,
                    Status.DONE if done else Status.STOPPED,
                    rungs[max(rungs)],
                    observation.latency_ms,
                    observation.latency_ci_ms,
                    rungs if len(ladder.rungs) > 1 else {},
                )
                if done and rungs[EPOCHS] > measured:
                    measured, true = rungs[EPOCHS], top
            policy.observe([observation])
            while len(found) < len(CHECKPOINTS) and spent >= CHECKPOINTS[len(found)]:
                found.append((true, met))
        if not batch:
            found += [(true, met)] * (len(CHECKPOINTS) - len(found))
    return found


def compare(table: Table, policy: str, seeds: Sequence[int], *, cheap: float) -> list[dict[str, Any]]:
    """A line for each ladder; gains over no ladder are paired by seed."""
    outcomes = {ladder: [search(table, policy, ladder, seed, cheap=cheap) for seed in seeds] for ladder in LADDERS}
    plain = np.array([[value for value, _ in found] for found in outcomes[LADDERS[0]]])
    lines = []
    for ladder, found in outcomes.items():
        values = np.array([[value for value, _ in one] for one in found])
        gains = 100 * (values - plain)
        lines.append(
            {
                "policy": policy,
                "seeds": len(seeds),
                "rungs": ladder.rungs,
                "keep": ladder.keep,
                "accuracy": values.mean(axis=0).tolist(),
                "gain_points": gains.mean(axis=0).tolist(),
                "gain_standard_error": (gains.std(axis=0) / len(seeds) ** 0.5).tolist(),
                "met": np.array([[met for _, met in one] for one in found]).mean(axis=0).tolist(),
            }
        )
    return lines


def main() -> int:
    made = parser(str(__doc__).partition("\n")[0])
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--seeds", type=int)
    made.add_argument("--policy", nargs="+", default=["npas", "random", "evolution"])
    made.add_argument("--cheap", type=float, default=0.16, help="see benchmarks/fast_evaluation.py: CPU s of the rungs")
    arguments = made.parse_args()
    seeds = range(arguments.seeds or (4 if arguments.quick else 12))
    table = load("digits")
    low = LowRung(table)
    print(f"{len(low.pairs)} architectures trained both ways, deviation from the curve {low.deviation:.2f} logits")
    report: dict[str, Any] = {"checkpoints": CHECKPOINTS, "lines": []}
    print(f"{'':28}" + "".join(f"{f'after {c} trainings: gain, met':>34}" for c in CHECKPOINTS))
    for policy in arguments.policy:
        for line in compare(table, policy, list(seeds), cheap=arguments.cheap):
            report["lines"].append(line)
            name = " -> ".join(map(str, line["rungs"])) + (f" keep {line['keep']:g}" if len(line["rungs"]) > 1 else "")
            cells = zip(line["accuracy"], line["gain_points"], line["gain_standard_error"], line["met"], strict=True)
            said = [f"{a:.4f}  {g:+.2f} ± {e:.2f}  {m:5.0f}" for a, g, e, m in cells]
            print(f"{policy:10} {name:17}" + "".join(f"{text:>34}" for text in said), flush=True)
    finish("ladder", report, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
