"""Runs a scenario: the real Pool and Fleet, simulated phones, a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Iterator

from device_farm.fleet import pool as pool_module
from device_farm.fleet.pool import Pool
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Done, Failed, Job
from device_farm.simulator.books import Books, quantile
from device_farm.simulator.clock import run_virtually
from device_farm.simulator.phone import Candidate, Reading, SimulatedPhone, Station
from device_farm.simulator.report import Report
from device_farm.simulator.scenario import Scenario, Search

# An answer off by more than this is a wrong number.
_WRONG = 0.03


def simulate(scenario: Scenario, seed: int) -> Report:
    """What comes of a scenario. Costs real time for every lease, none for waiting."""
    with _quiet():
        return run_virtually(_Simulation(scenario, seed).run())


class _Simulation:
    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._seed = seed
        self._station = Station(scenario.broker_s)
        self._phones: list[SimulatedPhone] = []

    async def run(self) -> Report:
        scenario = self._scenario
        fleet: Fleet[Reading] = Fleet(scenario.policy)
        loop = asyncio.get_running_loop()
        books = Books(scenario.searches, load=fleet.load, clock=loop.time)
        pool: Pool[Candidate, Reading] = Pool(fleet, observe=books.observe)
        life = [loop.create_task(self._joining(pool))]
        searches = [loop.create_task(self._search(search, pool, books)) for search in scenario.searches]
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*searches), scenario.limit_s)
            books.observe(())
            return self._report(books)
        finally:
            for task in life:
                task.cancel()
            await asyncio.gather(*life, return_exceptions=True)
            await pool.close()

    async def _joining(self, pool: Pool[Candidate, Reading]) -> None:
        """Phones are plugged in one after the other, models mixed; their mishaps begin at once."""
        kinds = [(model, n) for model, count in self._scenario.phones for n in range(count)]
        random.Random(f"{self._seed}/order").shuffle(kinds)
        async with asyncio.TaskGroup() as mishaps:
            for model, n in kinds:
                serial = f"{model.name}-{n}"
                rng = random.Random(f"{self._seed}/phone/{serial}")
                phone = SimulatedPhone(serial, model=model, scenario=self._scenario, station=self._station, rng=rng)
                self._phones.append(phone)
                pool.add(phone)
                mishaps.create_task(phone.suffer())
                await asyncio.sleep(self._scenario.join_s / len(kinds))

    async def _search(self, search: Search, pool: Pool[Candidate, Reading], books: Books) -> None:
        """Keeps as many jobs outstanding as it may, in the order of its candidates."""
        await asyncio.sleep(search.start_s)
        work = self._work(search)

        async def lane() -> None:
            for job, candidate in work:
                books.asked(search, job.key)
                books.answered(search, await pool.ask(job, candidate))

        await asyncio.gather(*(lane() for _ in range(min(search.outstanding, search.jobs))))

    def _work(self, search: Search) -> Iterator[tuple[Job, Candidate]]:
        rng = random.Random(f"{self._seed}/search/{search.name}")
        for n in range(search.candidates):
            candidate = Candidate(
                cost_ms=rng.uniform(1.0, 50.0),
                seconds=search.measure_s * rng.lognormvariate(0.0, search.spread),
                crashes=rng.random() < search.crashing,
            )
            artifact_key = f"{search.name}/{n}"
            for model in search.models:
                key = f"{artifact_key}/{model}"
                yield Job(key, artifact_key, model, client=search.name, priority=search.priority), candidate

    def _report(self, books: Books) -> Report:
        scenario = self._scenario
        jobs = sum(search.jobs for search in scenario.searches)
        readings = [outcome.result for outcome in books.outcomes.values() if isinstance(outcome, Done)]
        errors = sorted(reading.error for reading in readings)
        waits_s = books.waits_s
        seconds = asyncio.get_running_loop().time()
        harmed = Counter(key for phone in self._phones for key in sorted(set(phone.harmed_by)))
        waited_s = self._station.waited_s
        unfit = sum(phone.unfit for phone in self._phones)
        return Report(
            phones=sum(count for _, count in scenario.phones),
            jobs=jobs,
            measured=len(readings),
            failed=dict(sorted(Counter(o.error for o in books.outcomes.values() if isinstance(o, Failed)).items())),
            lost=jobs - len(books.outcomes),
            doubled=books.doubled,
            fenced=sum(phone.measured for phone in self._phones) - len(readings),
            wrong_numbers=sum(error > _WRONG for error in errors),
            largest_error=quantile(errors, 1.0),
            most_harmed=max(harmed.values(), default=0),
            leases=books.leases,
            retries=books.leases - len(waits_s),
            unfit=unfit,
            restarts=books.restarts,
            notes=dict(sorted(books.notes.items())),
            seconds=seconds,
            utilisation=1.0 - (books.idle_queued_s + waited_s) / max(books.could_serve_queued_s, 1e-9),
            idle_while_queued_s=books.idle_queued_s,
            serving=books.could_serve_s / (sum(count for _, count in scenario.phones) * seconds),
            broker_wait_s=waited_s,
            wait_median_s=quantile(waits_s, 0.5),
            wait_p95_s=quantile(waits_s, 0.95),
            wait_longest_s=quantile(waits_s, 1.0),
            searches=books.by_search(),
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The pool logs every restart; a simulated week has many."""
    logger = logging.getLogger(pool_module.__name__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
