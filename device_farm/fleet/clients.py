"""Who asks, and whether they still live: a search that dies leaves nothing behind.

A client process shows that it lives by a call to the broker that never ends (`Broker.hold`). The result of that call
belongs to the process, so Ray tells whoever waits for the same result when its owner is gone, however it went. What the
process waited for is dropped after a grace time, unless somebody else waits for it, too.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import OwnerDiedError, RayError

T = TypeVar("T")


@dataclass(frozen=True)
class Caller:
    """A process that asks. `alive` is never resolved; it is lost with the process."""

    token: str
    alive: ray.ObjectRef[Any]


_callers: dict[str, Caller] = {}  # of this process, by broker


def caller_of_this_process(broker: Any) -> Caller:
    """Made at the first call; `broker` is the handle of its actor."""
    key = broker._actor_id.hex()
    if key not in _callers:
        token = uuid.uuid4().hex
        _callers[key] = Caller(token, broker.hold.remote(token))
    return _callers[key]


class Gone(Exception):
    """The process that asked has died, and its grace time is over."""


class Clients:
    """Who waits for what. All methods belong to one event loop."""

    def __init__(self, *, grace_s: float) -> None:
        self._grace_s = grace_s
        self._gone: dict[str, asyncio.Event] = {}  # by token
        self._asking: dict[str, set[asyncio.Task[Any]]] = {}  # by token
        self._wanted: Counter[str] = Counter()
        self._watches: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Living client processes."""
        return sum(not event.is_set() for event in self._gone.values())

    async def hold(self, token: str) -> None:
        """Returns when the process has died."""
        await self._gone.setdefault(token, asyncio.Event()).wait()

    def close(self) -> None:
        """Lets go of every call that shows a life."""
        for event in self._gone.values():
            event.set()

    async def answer(self, caller: Caller, answer: Coroutine[Any, Any, T]) -> T:
        """The answer's value. Raises Gone when the caller is gone, and stops waiting on its behalf."""
        self._watch(caller)
        task = asyncio.ensure_future(answer)
        asking = self._asking.setdefault(caller.token, set())
        asking.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if task.cancelled() and self._gone[caller.token].is_set():
                raise Gone from None
            raise
        finally:
            asking.discard(task)

    @contextmanager
    def waiting_for(self, key: str) -> Iterator[None]:
        """For as long as somebody waits for the job `key`."""
        self._wanted[key] += 1
        try:
            yield
        finally:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key]

    def want(self, key: str) -> bool:
        """Whether anybody waits for the job."""
        return key in self._wanted

    def _watch(self, caller: Caller) -> None:
        event = self._gone.setdefault(caller.token, asyncio.Event())
        if caller.token in self._asking or event.is_set():
            return
        task = asyncio.get_running_loop().create_task(self._mourn(caller))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _mourn(self, caller: Caller) -> None:
        try:
            await caller.alive
        except OwnerDiedError:
            await asyncio.sleep(self._grace_s)
        except RayError:  # the call itself failed: that tells nothing of the process
            return
        else:
            return  # let go by `close`
        self._gone[caller.token].set()
        for task in self._asking.pop(caller.token, set()):
            task.cancel()
