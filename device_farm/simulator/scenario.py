"""What is simulated: phones, what befalls them, and the searches that want them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from device_farm.fleet.words import Policy
from device_farm.simulator.faults import FaultRates
from device_farm.simulator.thermal import ThermalModel


@dataclass(frozen=True)
class PhoneModel:
    """Phones of one kind. `speed` divides a candidate's cost; `link_s` is spent on the link for each measurement."""

    name: str
    speed: float = 1.0
    link_s: float = 0.3
    connect_s: float = 2.0
    thermal: ThermalModel = field(default_factory=ThermalModel)


@dataclass(frozen=True)
class Search:
    """Somebody who has `candidates` measured, each on every one of `models`, at most `outstanding` jobs at once.

    A candidate is measured for about `measure_s` seconds, spread by the factor e**`spread`, and costs 1 to 50 ms at
    speed 1. A fraction `crashing` of the candidates crashes wherever it runs.
    """

    name: str
    models: tuple[str, ...]
    candidates: int
    outstanding: int
    priority: int = 0
    start_s: float = 0.0
    measure_s: float = 8.0
    spread: float = 0.3
    crashing: float = 0.0

    @property
    def jobs(self) -> int:
        return self.candidates * len(self.models)


@dataclass(frozen=True)
class Scenario:
    """A farm and its day. `phones`: so many of each model, joining evenly within `join_s`.

    A phone's room is `ambient_c` warm, give or take `ambient_spread_c` (a standard deviation). A phone warmer than
    `admit_c` is unfit until it has cooled to `resume_c`, as is one whose sentinel says that its clock is off by more
    than `drift_limit`. `broker_s` is what the broker needs for one lease, one at a time. Whatever is not answered
    after `limit_s` is lost.
    """

    phones: tuple[tuple[PhoneModel, int], ...]
    searches: tuple[Search, ...]
    faults: FaultRates = field(default_factory=FaultRates)
    policy: Policy = field(default_factory=Policy)
    join_s: float = 10.0
    ambient_c: float = 24.0
    ambient_spread_c: float = 1.5
    admit_c: float = 40.0
    resume_c: float = 36.0
    drift_limit: float = 0.10
    broker_s: float = 0.001
    limit_s: float = 30 * 24 * 3600.0

    def __post_init__(self) -> None:
        names = Counter(model.name for model, _ in self.phones) + Counter(search.name for search in self.searches)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"two models or searches are called {twice[0]!r}")
        known = {model.name for model, _ in self.phones}
        for search in self.searches:
            for name in search.models:
                if name not in known:
                    raise ValueError(f"search {search.name!r} wants {name!r}; models: {', '.join(sorted(known))}")


# A phone of each kind that a lab has: the two fast ones get hot.
FLAGSHIP = PhoneModel("flagship", speed=4.0, thermal=ThermalModel(rise_c=15.0, tau_s=200.0))
MIDRANGE = PhoneModel("midrange", speed=1.5, thermal=ThermalModel(rise_c=11.0, tau_s=180.0))
BUDGET = PhoneModel("budget", speed=0.6, link_s=0.6, thermal=ThermalModel(rise_c=8.0, tau_s=150.0))
MODELS = (FLAGSHIP, MIDRANGE, BUDGET)

# A bad week: on average every fault befalls a phone once in a hundred hours.
ADB_AS_IT_IS = FaultRates.all_at(0.01, spell_s=90.0)


def lab(phones: int, jobs: int, *, faults: FaultRates = ADB_AS_IT_IS, crashing: float = 0.005) -> Scenario:
    """A lab of three models, and three searches: a burst, a steady one of twice the share, and an urgent late one.

    `jobs` are rounded up to candidates that are measured on every model.
    """
    counts = [phones // 3 + (n < phones % 3) for n in range(3)]
    models = tuple((model, count) for model, count in zip(MODELS, counts, strict=True) if count)
    names = tuple(model.name for model, _ in models)
    per_model = math.ceil(jobs / len(names))
    burst, urgent = per_model // 2, per_model // 10
    steady = per_model - burst - urgent
    searches = (
        Search("burst", names, burst, burst * len(names), crashing=crashing),
        Search("steady", names, steady, 4 * phones, crashing=crashing),
        Search("urgent", names, urgent, phones, priority=1, start_s=60.0, crashing=crashing),
    )
    return Scenario(models, searches, faults=faults, policy=Policy(shares={"steady": 2.0}))
