"""Budgets that no candidate can keep, or that none kept: known as early as can be, and said in words. No Ray here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from npas_ray.errors import NoFeasibleCandidate
from npas_ray.journal import Candidate
from npas_ray.networks.lowering import lower
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture, LayerChoice, Operator
from npas_ray.space.search_space import SearchSpace

WAYS_OUT = "raise them, allow higher rates, or ask for more candidates"


def smallest_architecture(space: SearchSpace, *, block_height: int) -> Architecture:
    """The network with the fewest multiply-accumulates: left out is what may be left out, the rest is pruned most."""
    frame = [LayerChoice(Operator.SKIP)] * len(space.backbone.blocks)
    frame += [LayerChoice(Operator.FC)] * space.backbone.searchable_head

    def work(index: int, choice: LayerChoice) -> int:
        layers = (*frame[:index], choice, *frame[index + 1 :])
        return lower(space.backbone, Architecture(layers), block_height=block_height).kept_macs

    smallest = (
        min(space.choices(index), key=lambda choice, index=index: work(index, choice))  # type: ignore[misc]
        for index in range(space.layers)
    )
    return Architecture(tuple(smallest))


def check_reach(
    smallest: Architecture,
    objective: Objective,
    *,
    dense_ms: Mapping[str, float],
    measure: Callable[[str], Mapping[str, Any]],
) -> list[str]:
    """Warnings about budgets that the smallest network of the space does not keep, measured by `measure(model)`.

    It is measured where the dense network does not keep the budget. Raises NoFeasibleCandidate if a budget is surely
    out of reach: its blocks are all left out, so whatever else is chosen does the same work and more, and the whole
    interval lies above the budget. Fewest multiply-accumulates alone do not prove that nothing is faster: a warning.
    """
    bare = all(choice.operator in (Operator.SKIP, Operator.FC) for choice in smallest.layers)
    warnings = []
    for model, budget_ms in objective.budgets_ms.items():
        if dense_ms.get(model, budget_ms + 1) <= budget_ms:
            continue
        measurement = measure(model)
        latency_ms = float(measurement["latency_ms"])
        low_ms = float(measurement.get("ci_low_ms") or latency_ms)
        if low_ms <= budget_ms:
            continue
        if bare:
            raise NoFeasibleCandidate(
                f"no network of this space keeps {budget_ms:.4g} ms on {model}: even without any of its blocks it takes"
                f" {latency_ms:.4g} ms; raise the budget"
            )
        warnings.append(
            f"the network with the least work takes {latency_ms:.4g} ms on {model}, the budget is {budget_ms:.4g} ms:"
            " it is probably out of reach"
        )
    return warnings


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
