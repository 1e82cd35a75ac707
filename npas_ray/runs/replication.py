"""The latencies of finalists, in further sessions and on further phones, before one of them is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from device_farm.compiler.graph import Graph
from device_farm.fleet.farm import Farm
from device_farm.measurement.codec import measurement_to_json, replicated_to_json
from device_farm.measurement.finalists import Believed, Effort, believe
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
    """What does not keep its budget when it is measured again; None: all do."""
    over = [
        f"{found.latency.latency_ms:.4g} ms +- {found.latency.half_width:.1%} on {model}, budget"
        f" {objective.budgets_ms[model]:.4g} ms"
        for model, found in latencies.items()
        if model in objective.budgets_ms and found.latency.latency_ms > objective.budgets_ms[model]
    ]
    return "; ".join(over) or None
