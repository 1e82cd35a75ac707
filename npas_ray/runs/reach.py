"""What can be had of a run, and what cannot: budgets out of reach, none kept, no such candidate. No Ray in here."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from npas_ray.errors import NoFeasibleCandidate, RunError
from npas_ray.journal import Candidate
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.lowering import lower
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator
from npas_ray.space.search_space import SearchSpace

WAYS_OUT = "raise them, allow higher rates, or ask for more candidates"


def bare_architecture(backbone: Backbone) -> Architecture:
    """The network without any of its blocks, whether the space allows that or not."""
    head = (LayerChoice(Operator.FC),) if backbone.searchable_head else ()
    return Architecture((*(LayerChoice(Operator.SKIP),) * len(backbone.blocks), *head))


def smallest_architecture(space: SearchSpace, *, block_height: int) -> Architecture:
    """The network with the fewest multiply-accumulates: left out is what may be left out, the rest is pruned most."""
    frame = bare_architecture(space.backbone).layers

    def work(index: int, choice: LayerChoice) -> int:
        layers = (*frame[:index], choice, *frame[index + 1 :])
        return lower(space.backbone, Architecture(layers), block_height=block_height).kept_macs

    smallest = (min(space.choices(index), key=functools.partial(work, index)) for index in range(space.layers))
    return Architecture(tuple(smallest))


def check_reach(
    space: SearchSpace,
    objective: Objective,
    *,
    block_height: int,
    dense_ms: Mapping[str, float],
    measure: Callable[[Architecture, str], Mapping[str, Any]],
) -> list[str]:
    """Warnings about budgets that the network with the least work does not keep, by `measure(architecture, model)`.

    It is measured where the dense network does not keep the budget. Raises NoFeasibleCandidate if a budget is surely
    out of reach: the network without any block does not keep it, by its whole interval, and every other one does the
    same work and more. Fewest multiply-accumulates alone do not prove that nothing is faster: that is a warning.
    """
    warnings = []
    bare, smallest = bare_architecture(space.backbone), smallest_architecture(space, block_height=block_height)
    for model, budget_ms in objective.budgets_ms.items():
        if dense_ms.get(model, math.inf) <= budget_ms:
            continue
        # a searchable head can be pruned below the bare one's, by little
        if not space.backbone.searchable_head and (took := _longer(measure(bare, model), budget_ms)):
            raise NoFeasibleCandidate(
                f"no network of this space keeps {budget_ms:.4g} ms on {model}: even without any of its blocks it takes"
                f" {took}; raise the budget"
            )
        if smallest != bare and (took := _longer(measure(smallest, model), budget_ms)):
            warnings.append(
                f"the network with the least work takes {took} on {model}, the budget is {budget_ms:.4g} ms: it is"
                " probably out of reach"
            )
    return warnings


def _longer(measurement: Mapping[str, Any], budget_ms: float) -> str | None:
    """The latency in words if its whole interval lies above the budget."""
    latency_ms = float(measurement["latency_ms"])
    return f"{latency_ms:.4g} ms" if float(measurement.get("ci_low_ms") or latency_ms) > budget_ms else None


def none_feasible(candidates: Sequence[Candidate], objective: Objective) -> NoFeasibleCandidate:
    """What to say when a search ended and no candidate keeps all budgets: which budget is to blame."""
    budgets_ms = objective.budgets_ms
    said = ", ".join(f"{budget_ms:.4g} ms on {model}" for model, budget_ms in budgets_ms.items()) or "there are none"
    concluded = [candidate for candidate in candidates if candidate.status is not None]
    head = f"none of {len(concluded)} candidates was trained within the budgets ({said})"
    measured = [c.observation() for c in concluded if c.measurements]
    counted = [objective.counted_ms(o.latency_ms, o.latency_ci_ms) for o in measured]
    kept = {
        model: sum(c.get(model, budgets_ms[model] + 1) <= budgets_ms[model] for c in counted) for model in budgets_ms
    }
    blame = []
    for model, count in kept.items():
        fastest_ms = min((c[model] for c in counted if model in c), default=None)
        if not count and fastest_ms is not None:
            blame.append(f"the fastest took {fastest_ms:.4g} ms on {model}")
    if not blame and len(kept) > 1 and all(kept.values()):
        each = ", ".join(f"{model} {count}" for model, count in kept.items())
        blame.append(f"each alone was kept ({each} times), never all at once: together they may contradict each other")
    failed = sum(candidate.status is Status.FAILED for candidate in concluded)
    blame += [f"{failed} failed"] if failed else []
    return NoFeasibleCandidate("; ".join([head, *blame, WAYS_OUT]))


def trained_candidate(candidates: Sequence[Candidate], ordinal: int) -> Candidate:
    """A candidate that was trained to the end, by its number. Raises RunError."""
    found = next((candidate for candidate in candidates if candidate.ordinal == ordinal), None)
    if found is None:
        raise RunError(f"there is no candidate #{ordinal}; the run has #1 to #{len(candidates)}")
    if found.status is not Status.DONE:
        raise RunError(f"candidate #{ordinal} cannot be shipped: it is {found.status or 'under way'}")
    return found
