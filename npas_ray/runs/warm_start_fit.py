"""What of another search holds in this one: which candidates, which accuracies, which latencies. Pure.

An accuracy is learned as one of this search if task, backbone and epochs of training are the same; if it is of fewer
epochs, as one of a lower rung of the ladder; else not at all. A latency is learned if device and compiler are the
same, which the measurements of the dense network tell, that every run begins with. What is not learned still says
which candidates are worth measuring first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npas_ray.config import SearchConfig
from npas_ray.runs.warm_start_sources import Found, Source
from npas_ray.search.policy import Observation, Status
from npas_ray.search.registry import policy_class
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture, LayerChoice
from npas_ray.space.search_space import SearchSpace
from npas_ray.space.steps import nearest_choice

#: candidates of a run that are measured first, where the configuration does not say how many
START_WITH = 5
#: the dense network's latencies there and here may differ by this factor before the device counts as changed
MAX_CHANGE = 1.1
#: of `details`: what a device is, not how it is at the moment
_LASTING = ("processor", "soc", "manufacturer", "features", "cores", "clusters", "abi")

Dense = Mapping[str, Mapping[str, Any]]  # measurement of the dense network as JSON, by device model


@dataclass(frozen=True)
class Fit:
    """What a search takes from one source, and the words for it."""

    prior: tuple[Observation, ...]
    start_with: tuple[Architecture, ...]
    said: tuple[str, ...]


def fit(
    source: Source,
    *,
    config: SearchConfig,
    space: SearchSpace,
    objective: Objective,
    dense: Dense | None,
    start_with: int | None = None,
) -> Fit:
    """What of a source fits a search.

    `dense` is the dense network on this search's devices, None before it was measured: then nothing is said of
    latencies, and none are taken. `start_with` is how many of its best are to be measured first; by default
    START_WITH of a run, and all of what somebody chose one by one. None of a run whose latencies do not hold, if the
    policy has something better to begin with: what was best there, on another device, is over the budget here.
    """
    fitting, misfits = _fitting(source, space)
    said = [_said_of_fit(source, fitting, misfits, space)]
    alike, why_not = _accuracies(source, config)
    models, said_of_latencies = _latencies(source, config, dense)
    prior = [
        observation
        for found in fitting
        if (observation := _observation(found, epochs=config.training.epochs if alike else None, models=models))
    ]
    if source.config is not None and fitting:
        said.append(_said_of_accuracies(prior, why_not, config.training.epochs))
        said += said_of_latencies
    learned = any(observation.status is Status.DONE for observation in prior)
    opens = learned and _opens_by_accuracy(config, objective, models)
    wanted = start_with if start_with is not None else _usual_start(source, opens=opens)
    best = [found.architecture for found in _best(source, objective, models, wanted)]
    chosen = dict.fromkeys(_nearest(space, architecture) for architecture in best)
    moved = sum(architecture not in chosen for architecture in best)
    chosen.pop(None, None)
    first = [architecture for architecture in chosen if architecture is not None]
    if first or wanted:
        also = f", {moved} of them as the nearest candidate that this space has" if moved and first else ""
        said.append(f"{len(first)} {'is' if len(first) == 1 else 'are'} measured here first{also}")
    elif opens and start_with is None and dense is not None:
        said.append("nobody knows where the budgets are among them: what is measured first is chosen by the accuracies")
    return Fit(tuple(prior), tuple(first), tuple(said))


def _usual_start(source: Source, *, opens: bool) -> int:
    if source.chosen:
        return len(source.found)
    return 0 if opens else START_WITH


def _opens_by_accuracy(config: SearchConfig, objective: Objective, models: Sequence[str]) -> bool:
    """Whether the policy begins by what it believes of accuracies, as budgets stand on latencies that are unknown."""
    unknown = set(objective.budgets_ms) - set(models)
    return objective.mode is Mode.BEST and bool(unknown) and policy_class(config.search.policy).opens_by_accuracy


# --- which candidates ----------------------------------------------------------------------------------------------


def _fitting(source: Source, space: SearchSpace) -> tuple[list[Found], Counter[str]]:
    """Those that are in the space, made canonical, and what is wrong with the others."""
    fitting: dict[Architecture, Found] = {}
    misfits: Counter[str] = Counter()
    for found in source.found:
        problem = _misfit(space, found.architecture)
        if problem is not None:
            misfits[problem] += 1
            continue
        canonical = space.canonical(found.architecture)
        fitting.setdefault(canonical, Found(canonical, found.rungs, found.latency_ms, found.latency_ci_ms))
    return list(fitting.values()), misfits


def _misfit(space: SearchSpace, architecture: Architecture) -> str | None:
    """What an architecture has that the space lacks: a number of layers, operators, schemes or rates."""
    if len(architecture.layers) != space.layers:
        return f"{len(architecture.layers)} layers instead of {space.layers}"
    lacking = [
        _lacking(space.choices(index), choice)
        for index, choice in enumerate(architecture.layers)
        if space.why_illegal(index, choice) is not None
    ]
    order = ("operators", "schemes", "rates", "choices")
    return f"{min(lacking, key=order.index)} that it lacks" if lacking else None


def _lacking(choices: Sequence[LayerChoice], choice: LayerChoice) -> str:
    same = [other for other in choices if other.operator is choice.operator]
    if not same:
        return "operators"
    if choice.rate > 1 and not any(other.scheme is choice.scheme for other in same):
        return "schemes"
    return "rates" if not any(other.rate == choice.rate for other in same) else "choices"


def _nearest(space: SearchSpace, architecture: Architecture) -> Architecture | None:
    """The architecture, each layer moved to its nearest legal choice; None if that is another number of layers."""
    if len(architecture.layers) != space.layers:
        return None
    moved = [
        choice if space.why_illegal(index, choice) is None else nearest_choice(choice, space.choices(index))
        for index, choice in enumerate(architecture.layers)
    ]
    return space.canonical(Architecture(tuple(moved)))


# --- which results -------------------------------------------------------------------------------------------------


def _accuracies(source: Source, config: SearchConfig) -> tuple[bool, str]:
    """Whether accuracies can be compared, and what is different if not."""
    if source.config is None:
        return False, "nobody knows how they came about"
    theirs = source.config
    if theirs.space.backbone != config.space.backbone:
        return False, f"they are of backbone {theirs.space.backbone!r}, here it is {config.space.backbone!r}"
    if theirs.task != config.task:
        return False, f"they are of the task {_task(theirs)}, here it is {_task(config)}"
    return True, ""


def _task(config: SearchConfig) -> str:
    return repr(config.task.name) + f" with {config.task.train_images} training images"


def _latencies(source: Source, config: SearchConfig, dense: Dense | None) -> tuple[list[str], list[str]]:
    """Device models whose latencies hold here, and a sentence for each model that the source measured."""
    measured = dict.fromkeys(model for found in source.found for model in found.latency_ms)
    if dense is None:
        return [], []
    models, said = [], []
    for model in measured:
        if model not in config.models:
            continue
        change = why_changed(source.dense.get(model), dense.get(model))
        said.append(f"latencies on {model} are {'learned' if change is None else f'ignored: {change}'}")
        if change is None:
            models.append(model)
    if measured and not said:
        said.append(f"latencies are ignored: they are of {', '.join(measured)}")
    return models, said


def why_changed(there: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> str | None:
    """Why latencies of another search do not hold here, from the dense network's two measurements; None if they do."""
    if there is None or here is None:
        return "the dense network was not measured on it"
    old, new = there.get("device") or {}, here.get("device") or {}
    for name, unset in (("target", None), ("emulated", False), ("threads", 1)):
        if old.get(name, unset) != new.get(name, unset):
            return f"another {name}, {old.get(name, unset)} instead of {new.get(name, unset)}"
    was, is_ = old.get("details") or {}, new.get("details") or {}
    for name in _LASTING:
        if name in was and name in is_ and was[name] != is_[name]:
            return f"another device, its {name} differs"
    if there.get("artifact_key") != here.get("artifact_key"):
        return "another compiler, to which the dense network is another artifact"
    before_ms, now_ms = float(there["latency_ms"]), float(here["latency_ms"])
    if max(before_ms, now_ms) > MAX_CHANGE * min(before_ms, now_ms):
        return f"the dense network took {before_ms:.4g} ms there and takes {now_ms:.4g} ms here"
    return None


def _observation(found: Found, *, epochs: int | None, models: Sequence[str]) -> Observation | None:
    """What of a candidate is to be learned; None if that is nothing. `epochs` None: not its accuracy."""
    latency_ms = {model: found.latency_ms[model] for model in models if model in found.latency_ms}
    latency_ci_ms = {model: found.latency_ci_ms[model] for model in latency_ms if model in found.latency_ci_ms}
    if epochs is not None:
        rungs = {rung: accuracy for rung, accuracy in found.rungs.items() if rung <= epochs}
        if rungs:
            top = max(rungs)
            status = Status.DONE if top == epochs else Status.STOPPED
            shown = rungs if status is Status.STOPPED or len(rungs) > 1 else {}
            return Observation(found.architecture, status, rungs[top], latency_ms, latency_ci_ms, shown)
    if latency_ms:
        return Observation(found.architecture, Status.OVER_BUDGET, None, latency_ms, latency_ci_ms)
    return None


# --- which ones first ----------------------------------------------------------------------------------------------


def _best(source: Source, objective: Objective, models: Sequence[str], count: int) -> list[Found]:
    """Up to `count` candidates that are worth measuring first, best first.

    Where the latencies hold: by reward. Where they do not, nobody knows where the budgets are among them, so they are
    spread evenly over the source's own front; and so they are where a front is looked for. What somebody chose is in
    the order of the choice.
    """
    if source.chosen:
        return list(source.found[:count])
    trained = sorted((f for f in source.found if f.accuracy is not None), key=lambda found: -(found.accuracy or 0.0))
    if objective.mode is Mode.BEST and set(objective.budgets_ms) <= set(models):

        def reward(found: Found) -> float:
            known = {model: found.latency_ms[model] for model in models if model in found.latency_ms}
            return (found.accuracy or 0.0) - max(objective.alpha, 1.0) * objective.excess(known)

        return sorted(trained, key=lambda found: -reward(found))[:count]
    model = next((model for found in trained for model in found.latency_ms), None)
    if model is None or count < 1:
        return trained[:count]
    measured = [found for found in trained if model in found.latency_ms]
    members: list[Found] = []  # of the front, most accurate first
    for found in measured:
        if not members or found.latency_ms[model] < members[-1].latency_ms[model]:
            members.append(found)
    last = len(members) - 1
    spread = dict.fromkeys(math.floor(i * last / max(count - 1, 1) + 0.5) for i in range(count))
    chosen = [members[index] for index in spread]
    return [*chosen, *(found for found in trained if found not in chosen)][:count]


# --- words ---------------------------------------------------------------------------------------------------------


def _said_of_fit(source: Source, fitting: Sequence[Found], misfits: Counter[str], space: SearchSpace) -> str:
    total = len(source.found) + len(source.unreadable)
    what = "candidates" if source.config is not None else "architectures"
    problems = [f"{count} {'has' if count == 1 else 'have'} {problem}" for problem, count in misfits.most_common()]
    if source.unreadable:
        problems.append(f"{len(source.unreadable)} cannot be read (first {source.unreadable[0]})")
    return f"{total - misfits.total() - len(source.unreadable)} of {total} {what} of {source.name} fit this space" + (
        f"; {', '.join(problems)}" if problems else ""
    )


def _said_of_accuracies(prior: Sequence[Observation], why_not: str, epochs: int) -> str:
    if why_not:
        return f"accuracies are not learned: {why_not}"
    done = sum(observation.status is Status.DONE for observation in prior)
    stopped = sum(observation.status is Status.STOPPED for observation in prior)
    if not done and not stopped:
        return f"accuracies are not learned: none was trained for {_epochs(epochs)} or fewer"
    also = f", and {stopped} of fewer epochs as those of a lower rung" if stopped else ""
    return f"{done} accuracies after {_epochs(epochs)} are learned{also}"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
