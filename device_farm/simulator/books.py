"""Bookkeeping beside a simulated farm, from what the pool does and what the phones know to be true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from device_farm.fleet.words import Action, Done, Load, Note, Outcome, Restart, Run, Settle
from device_farm.simulator.phone import Reading
from device_farm.simulator.report import SearchReport
from device_farm.simulator.scenario import Search


class Books:
    """Shown the actions of every event. `load` tells how the fleet is, `clock` the time."""

    def __init__(
        self, searches: Sequence[Search], *, load: Callable[[], dict[str, Load]], clock: Callable[[], float]
    ) -> None:
        self._searches = {search.name: search for search in searches}
        self._load = load
        self._clock = clock
        self._at_s = 0.0
        self._loads: Iterable[Load] = ()
        self._asked: dict[str, tuple[Search, float]] = {}  # jobs that were never leased so far
        self._unleased = {search.name: search.jobs for search in searches}
        self._uncontended: set[int] = set()  # priorities of which some search has nothing waiting any more
        self._waits_s: dict[str, list[float]] = {search.name: [] for search in searches}
        self._measured: Counter[str] = Counter()
        self._finished_s: dict[str, float] = {}
        self._device_s: dict[str, float] = {search.name: 0.0 for search in searches}
        self.outcomes: dict[str, Outcome[Reading]] = {}
        self.doubled = 0
        self.leases = 0
        self.restarts = 0
        self.notes: Counter[str] = Counter()
        self.could_serve_s = 0.0
        self.could_serve_queued_s = 0.0
        self.idle_queued_s = 0.0

    def observe(self, actions: Sequence[Action[Reading]]) -> None:
        """An event of the fleet led to these."""
        now = self._clock()
        if now > self._at_s:
            self._pass(now - self._at_s)
            self._at_s = now
        for action in actions:
            match action:
                case Run(lease):
                    self.leases += 1
                    if lease.job.key in self._asked:
                        search, asked_s = self._begun(lease.job.key)
                        self._waits_s[search.name].append(now - asked_s)
                case Settle(key, outcome):
                    if key in self._asked:
                        self._begun(key)
                    self.doubled += key in self.outcomes
                    self.outcomes[key] = outcome
                case Restart():
                    self.restarts += 1
                case Note(what):
                    self.notes[what] += 1
        self._loads = self._load().values()

    def asked(self, search: Search, key: str) -> None:
        self._asked[key] = search, self._clock()

    def answered(self, search: Search, outcome: Outcome[Reading]) -> None:
        self._finished_s[search.name] = self._clock()
        if isinstance(outcome, Done):
            self._measured[search.name] += 1
            if search.priority not in self._uncontended:
                self._device_s[search.name] += outcome.result.held_s

    @property
    def waits_s(self) -> list[float]:
        """Of all jobs that were leased, in ascending order."""
        return sorted(wait_s for waits_s in self._waits_s.values() for wait_s in waits_s)

    def by_search(self) -> dict[str, SearchReport]:
        return {name: self._search(search) for name, search in self._searches.items()}

    def _search(self, search: Search) -> SearchReport:
        waits_s = sorted(self._waits_s[search.name])
        return SearchReport(
            jobs=search.jobs,
            measured=self._measured[search.name],
            device_s=self._device_s[search.name],
            finished_s=self._finished_s.get(search.name, 0.0),
            wait_median_s=quantile(waits_s, 0.5),
            wait_longest_s=quantile(waits_s, 1.0),
        )

    def _begun(self, key: str) -> tuple[Search, float]:
        search, asked_s = self._asked.pop(key)
        self._unleased[search.name] -= 1
        if not self._unleased[search.name]:  # from now on the others of its priority have its share, too
            self._uncontended.add(search.priority)
        return search, asked_s

    def _pass(self, seconds: float) -> None:
        for load in self._loads:
            able = load.idle + load.leased
            self.could_serve_s += seconds * able
            if load.waiting:
                self.could_serve_queued_s += seconds * able
                self.idle_queued_s += seconds * load.idle


def quantile(ascending: Sequence[float], q: float) -> float:
    """The sample below or at which lie `q` of them; 0 of none."""
    return ascending[round(q * (len(ascending) - 1))] if ascending else 0.0
