"""Workers around a Fleet, in asyncio: carries out what the state machine decides. Still no Ray.

A worker is whatever runs one job at a time: a device's actor, a compiler's actor, something simulated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from device_farm.errors import Fenced
from device_farm.fleet.faults import fault_of
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Action, Blame, Fault, Job, Lease, Note, Outcome, Restart, Run, Settle

P = TypeVar("P")
R = TypeVar("R")
P_contra = TypeVar("P_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 5.0


class InputLost(Exception):
    """What a job needs was lost before it reached the worker: neither the worker's fault nor the artifact's."""


class Worker(Protocol[P_contra, R_co]):
    """The shell's view of one device."""

    @property
    def serial(self) -> str: ...

    @property
    def boot_id(self) -> str:
        """Another one after every restart of the device, as seen when it was connected last; "" if it does not tell."""

    async def connect(self) -> str:
        """Make it ready, however often it was restarted; returns its model. Raises anything: it is tried again."""

    async def run(self, lease: Lease, payload: P_contra) -> R_co:
        """Run one job. Raises FarmError, InputLost; anything else means that the worker broke down."""

    async def watch(self) -> None:
        """Returns, or raises, when a connected worker is lost; until then it waits."""

    async def restart(self) -> None:
        """Kill whatever it runs. Raises nothing of interest."""


class Pool(Generic[P, R]):
    """Runs the jobs of a fleet on workers. All methods belong to one event loop.

    `observe` is shown the actions of every event, also when there are none, before they are carried out: for a journal,
    for metrics. It must not call back.
    """

    def __init__(
        self,
        fleet: Fleet[R],
        *,
        connect_s: float = 60.0,
        observe: Callable[[Sequence[Action[R]]], None] | None = None,
    ) -> None:
        self._fleet = fleet
        self._connect_s = connect_s
        self._observe = observe
        self._workers: dict[str, Worker[P, R]] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._lost: dict[str, asyncio.Event] = {}
        self._complaints: dict[str, str] = {}  # why a worker is not there
        self._payloads: dict[str, P] = {}
        self._waiters: dict[str, list[asyncio.Future[Outcome[R]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s: float | None = None
        self._joined = asyncio.Event()

    @property
    def fleet(self) -> Fleet[R]:
        """For looking at; its events come from here."""
        return self._fleet

    @property
    def complaints(self) -> dict[str, str]:
        """By serial, why a worker could not be connected; absent while it is."""
        return dict(self._complaints)

    def add(self, worker: Worker[P, R]) -> None:
        """Employ a worker: it joins as soon as it can be connected, and again after every loss.

        Raises ValueError if one of its serial is employed already.
        """
        serial = worker.serial
        if serial in self._workers:
            raise ValueError(f"{serial} is employed already; remove it first")
        self._workers[serial] = worker
        self._keepers[serial] = self._spawn(self._keep(worker))
        self._apply(self._fleet.expect(serial, now=self._now()))

    async def remove(self, serial: str) -> None:
        """Dismiss a worker for good; what it runs is tried elsewhere. Raises NoSuchDevice."""
        self._apply(self._fleet.dismiss(serial, now=self._now()))
        keeper = self._keepers.pop(serial)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        self._complaints.pop(serial, None)
        self._lost.pop(serial, None)
        await self._restart(self._workers.pop(serial))

    async def ask(self, job: Job, payload: P) -> Outcome[R]:
        """The outcome of a job, the same for all who ask for its key. Cancelling only stops waiting."""
        waiter: asyncio.Future[Outcome[R]] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job.key, []).append(waiter)
        self._payloads.setdefault(job.key, payload)
        self._apply(self._fleet.submit(job, now=self._now()))
        return await waiter

    async def joined(self) -> None:
        """Returns when the next worker has joined."""
        await self._joined.wait()

    def quarantine(self, serial: str, *, reason: str) -> None:
        """Take a worker out of service until it is released. Raises NoSuchDevice."""
        self._apply(self._fleet.quarantine(serial, reason=reason, now=self._now()))

    def cool(self, serial: str, *, reason: str, seconds: float) -> None:
        """Let a worker rest for so long at least. Raises NoSuchDevice."""
        now = self._now()
        self._apply(self._fleet.cool(serial, reason=reason, now=now, until_s=now + seconds))

    def release(self, serial: str) -> None:
        """Forget strikes, rests and quarantines of a worker. Raises NoSuchDevice."""
        self._apply(self._fleet.release(serial, now=self._now()))

    def set_share(self, client: str, share: float) -> None:
        """Give a client another weight among those that share the workers. Raises ValueError."""
        self._fleet.set_share(client, share)

    def forget(self, key: str) -> None:
        """Drop a finished key from memory."""
        self._fleet.forget(key)

    async def close(self) -> None:
        """Stop everything; nobody is answered any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Carrying out

    def _apply(self, actions: list[Action[R]]) -> None:
        if self._observe is not None:
            self._observe(actions)
        for action in actions:
            match action:
                case Run(lease):
                    self._spawn(self._run(lease))
                case Settle(key, outcome):
                    self._payloads.pop(key, None)
                    for waiter in self._waiters.pop(key, []):
                        if not waiter.done():
                            waiter.set_result(outcome)
                case Restart(serial, reason):
                    _log.warning("restarting the worker of %s: %s", serial, reason)
                    if serial in self._lost:
                        self._lost[serial].set()
                case Note(what, subject, reason):
                    _log.info("%s: %s: %s", what, subject, reason)
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Wake up when the fleet next has something to do by itself."""
        wake_at_s = self._fleet.wake_at_s
        if wake_at_s == self._alarm_s:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._alarm = None if wake_at_s is None else loop.call_at(wake_at_s, self._tick)
        self._alarm_s = wake_at_s

    def _tick(self) -> None:
        self._alarm = self._alarm_s = None
        # The loop may call a little early, by its clock's resolution.
        wake_at_s = self._fleet.wake_at_s
        self._apply(self._fleet.tick(self._now() if wake_at_s is None else max(self._now(), wake_at_s)))

    async def _run(self, lease: Lease) -> None:
        serial, fence = lease.serial, lease.fence
        try:
            try:
                result = await self._workers[serial].run(lease, self._payloads[lease.job.key])
            except InputLost as error:
                fault = Fault(Blame.INPUT, "LeaseError", str(error))
                self._apply(self._fleet.fail(serial, fence, fault=fault, now=self._now()))
            except Exception as error:
                self._apply(self._fleet.fail(serial, fence, fault=fault_of(error), now=self._now()))
            else:
                self._apply(self._fleet.complete(serial, fence, result=result, now=self._now()))
        except Fenced as error:
            _log.info("%s", error)

    async def _keep(self, worker: Worker[P, R]) -> None:
        """Connect, wait for the loss, start anew; for ever."""
        serial = worker.serial
        pause_s = _FIRST_RETRY_S
        while True:
            lost = self._lost[serial] = asyncio.Event()
            try:
                model = await asyncio.wait_for(worker.connect(), self._connect_s)
            except Exception as error:
                self._complaints[serial] = _complaint(error, self._connect_s)
                if isinstance(error, TimeoutError):
                    await self._restart(worker)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_RETRY_S)
                continue
            pause_s = _FIRST_RETRY_S
            self._complaints.pop(serial, None)
            self._apply(self._fleet.join(serial, model, now=self._now(), boot_id=worker.boot_id))
            self._joined.set()
            self._joined = asyncio.Event()
            reason = await self._loss(worker, lost)
            if not lost.is_set():
                self._complaints[serial] = reason
                self._apply(self._fleet.leave(serial, now=self._now(), reason=reason))
            await self._restart(worker)

    async def _loss(self, worker: Worker[P, R], lost: asyncio.Event) -> str:
        """Wait until the worker is lost or not to be trusted; the reason of the former."""
        watch = asyncio.ensure_future(worker.watch())
        told = asyncio.ensure_future(lost.wait())
        try:
            await asyncio.wait((watch, told), return_when=asyncio.FIRST_COMPLETED)
            error = watch.exception() if watch.done() and not watch.cancelled() else None
            return f"was lost ({type(error).__name__})" if error is not None else "was lost"
        finally:
            for task in (watch, told):
                task.cancel()
            await asyncio.gather(watch, told, return_exceptions=True)

    async def _restart(self, worker: Worker[P, R]) -> None:
        with suppress(Exception):
            await worker.restart()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _complaint(error: Exception, connect_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"did not start within {connect_s:g} s"
    return f"{type(error).__name__}: {error}"
