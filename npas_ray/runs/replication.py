"""The latencies of finalists, in further sessions and on further phones, before one of them is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from device_farm.compiler.graph import Graph
from device_farm.fleet.farm import Farm
from device_farm.measurement.codec import measurement_to_json, replicated_to_json
from device_farm.measurement.finalists import Believed, Effort, believe
from device_farm.measurement.replicates import Scope, replicate
from device_farm.measurement.types import Measurement
from npas_ray.search.reward import Objective

_SESSION_S = 600.0  # longer than a phone rests as a rule

Weights = Mapping[str, NDArray[Any]]


def believed_latencies(
    farm: Farm, graph: Graph, *, models: Sequence[str], effort: Effort, weights: Weights | None = None
) -> dict[str, Believed]:
    """By device model, all models side by side. Raises FarmError."""

    def on(model: str) -> Believed:
        def session(replicate: int, avoid: Sequence[str]) -> Measurement:
            timeout_s = _SESSION_S if replicate else None
            return farm.measure(
                graph, model=model, weights=weights, replicate=replicate, avoid=avoid, timeout_s=timeout_s
            )

        def phones() -> list[str]:
            devices = farm.devices()
            return [d.serial for d in devices if d.facts is not None and d.facts.model == model and d.state.serves]

        return believe(session, phones=phones, effort=effort)

    with ThreadPoolExecutor(max_workers=len(models)) as threads:
        return dict(zip(models, threads.map(on, models), strict=True))


def to_json(believed: Believed) -> dict[str, Any]:
    """Latency and interval, and the sessions that they come from."""
    return {
        "latency": replicated_to_json(believed.latency),
        "ended": believed.ended,
        "sessions": [measurement_to_json(session) for session in believed.sessions],
    }


def in_short(believed: Believed) -> dict[str, Any]:
    """The same for the run's journal, where every session has a line."""
    sessions = [f"{session.latency_ms:.5g} ms on {session.device.serial}" for session in believed.sessions]
    return {"latency": replicated_to_json(believed.latency), "ended": believed.ended, "sessions": sessions}


def over_budget(latencies: Mapping[str, Believed], objective: Objective) -> str | None:
    """What does not keep its budget, with the objective's certainty, when it is measured again; None: all do.

    What counts is the interval of the phones that were measured. That of the model is wider, and no search on a few
    phones could keep a budget by it that its candidates were chosen for.
    """
    over = []
    for model, found in latencies.items():
        here = replicate(found.sessions, scope=Scope.PHONES)
        counted_ms = objective.counted_ms({model: here.latency_ms}, {model: (here.ci_low_ms, here.ci_high_ms)})[model]
        budget_ms = objective.budgets_ms.get(model, math.inf)
        if counted_ms > budget_ms:
            over.append(f"{here.latency_ms:.4g} ms +- {here.half_width:.1%} on {model}, budget {budget_ms:.4g} ms")
    return "; ".join(over) or None
