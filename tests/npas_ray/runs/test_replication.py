"""What becomes of a finalist's sessions: side by side on all models, against budgets, in the journal."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, cast

from device_farm.compiler.graph import Graph, Input, Shape
from device_farm.fleet.farm import Farm, FarmDevice
from device_farm.fleet.words import DeviceState
from device_farm.measurement.codec import replicated_from_json
from device_farm.measurement.finalists import Effort
from device_farm.measurement.types import DeviceFacts, Measurement
from npas_ray.reports.text import replicated
from npas_ray.runs.replication import believed_latencies, in_short, over_budget, to_json
from npas_ray.search.reward import Objective

GRAPH = Graph((Input("image", (), Shape(8, 8, 3)),))


@dataclass
class OfficeFarm:
    """Phones by model; each takes what its model takes and a little more than the one before."""

    phones: dict[str, tuple[float, list[str]]]
    asked: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)

    def devices(self) -> list[FarmDevice]:
        return [
            FarmDevice(serial, DeviceState.HEALTHY, DeviceFacts(serial, model, "aarch64-neon"), "")
            for model, (_, serials) in self.phones.items()
            for serial in serials
        ]

    def measure(self, graph: Graph, *, model: str, replicate: int, avoid: Any, **_: Any) -> Measurement:
        self.asked.append((model, replicate, tuple(avoid)))
        ms, serials = self.phones[model]
        serial = next((s for s in serials if s not in avoid), serials[0])
        ms *= 1 + 0.01 * serials.index(serial)
        facts = DeviceFacts(serial, model, "aarch64-neon")
        return Measurement(f"net-{model}", facts, "p", ms, ms * 0.99, ms * 1.01, 100, {}, 0.0, (), {})


def test_every_model_has_sessions_on_its_own_phones() -> None:
    office = OfficeFarm({"P": (2.0, ["p0", "p1", "p2"]), "Q": (5.0, ["q0"])})
    found = believed_latencies(cast(Farm, office), GRAPH, models=["P", "Q"], effort=Effort(most=4))
    assert {m.device.serial for m in found["P"].sessions} == {"p0", "p1", "p2"}
    assert [replicate for model, replicate, _ in office.asked if model == "Q"] == [0, 1, 2]
    assert all(set(avoid) <= {"p0", "p1", "p2"} for model, _, avoid in office.asked if model == "P")
    assert found["Q"].latency.scope == "phones" and found["P"].latency.scope == "model"

    assert over_budget(found, Objective({"P": 3.0})) is None
    over = over_budget(found, Objective({"P": 2.0, "Q": 9.0}))
    assert over is not None and over.startswith("2.0") and over.endswith("on P, budget 2 ms")
    ms = over_budget(found, Objective({"Q": 5.05}))  # 5 ms, but not surely
    assert ms is not None and ms.startswith("5 ms +- ")
    assert over_budget(found, Objective({"Q": 5.05}, certainty=0.5)) is None

    kept = json.loads(json.dumps(to_json(found["P"])))
    assert replicated_from_json(kept["latency"]) == found["P"].latency and len(kept["sessions"]) == 4
    assert in_short(found["Q"])["sessions"] == ["5 ms on q0"] * 3


def test_what_it_is_worth_is_said_beside_it() -> None:
    office = OfficeFarm({"P": (2.0, ["p0", "p1"])})
    latency = believed_latencies(cast(Farm, office), GRAPH, models=["P"], effort=Effort())["P"].latency
    final = {"replicated": {"P": json.loads(json.dumps(to_json_latency(latency)))}}
    assert replicated(final, "P").endswith("% (2 phones, 3 sessions)")
    lone = dataclasses.replace(latency, phones=1, sessions=1, scope="phones")
    assert "(this one device only, 1 session)" in replicated({"replicated": {"P": to_json_latency(lone)}}, "P")
    for damaged in ({}, {"replicated": None}, {"replicated": {"P": {"latency_ms": "x"}}}):
        assert replicated(damaged, "P") == ""


def to_json_latency(latency: Any) -> dict[str, Any]:
    from device_farm.measurement.codec import replicated_to_json

    return replicated_to_json(latency)
