"""Fair queueing: clients share devices of one kind by device-seconds.

Self-clocked fair queueing (Golestani, "A Self-Clocked Fair Queueing Scheme for Broadband Applications", 1994). Every
client has a tag: the device-seconds that it has had, over its weight. Next is whose tag would be lowest after one more
lease. A lease's length is not known beforehand, so the client is charged what its last ones took, and the difference
when the lease ends.

While two clients have jobs waiting, the device-seconds that they had over their weights differ by a bounded amount, the
leases under way. A client that comes back from a pause starts at the tag of the client served last: it gets no credit
for time that it did not use, and no debt is forgiven while others still work. Nor does it help to ask under ever new
names: every lease moves the start of the next newcomer on.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

# Before any lease has ended nothing is charged: clients take turns. A guess that is too high would be paid by whoever
# comes next, who starts at the tags of those that were overcharged.
_FIRST_GUESS_S = 0.0
# How much of a client's expectation its latest lease makes up.
_NEWS = 0.25
# Accounts that owe nothing are swept out when there are this many more than in use.
_SPARE_ACCOUNTS = 64


@dataclass
class _Account:
    client: str
    tag_s: float
    floor_s: float  # the queue's virtual time when it last began to wait; no refund reaches below
    jobs: list[tuple[int, str]] = field(default_factory=list)  # a heap of (sequence, key)
    leases: int = 0
    expected_s: float = _FIRST_GUESS_S
    version: int = 0  # of its entry in the queue's order; older ones do not count


class FairQueue:
    """Jobs of equal priority for equal devices. First in, first out within a client; weights may change meanwhile."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._accounts: dict[str, _Account] = {}
        self._order: list[tuple[float, int, int, _Account]] = []  # a heap of (next tag, turn, version, account)
        self._turn = 0
        self._virtual_s = 0.0
        self._jobs = 0
        self._leases = 0
        self._expected_s = _FIRST_GUESS_S

    def __len__(self) -> int:
        return self._jobs

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs: there is nothing to remember."""
        return self._jobs == 0 and self._leases == 0

    def push(self, client: str, sequence: int, key: str) -> None:
        """A job waits. The lower its sequence the sooner it goes, among those of its client."""
        account = self._account(client)
        if not account.jobs:
            account.floor_s = self._virtual_s
            account.tag_s = max(account.tag_s, self._virtual_s)
        heapq.heappush(account.jobs, (sequence, key))
        self._jobs += 1
        if len(account.jobs) == 1:
            self._place(account)

    def pop(self) -> tuple[int, str]:
        """The next job: sequence and key. Only from a queue that is not empty."""
        while True:
            next_tag_s, _, version, account = heapq.heappop(self._order)
            if version == account.version and account.jobs:
                break
        self._virtual_s = max(self._virtual_s, next_tag_s)
        self._jobs -= 1
        job = heapq.heappop(account.jobs)
        self._place(account)
        return job

    def begin(self, client: str) -> float:
        """A lease of the client begins. Returns the device-seconds charged for it: `end` wants them back."""
        account = self._account(client)
        account.leases += 1
        self._leases += 1
        self._charge(account, account.expected_s)
        return account.expected_s

    def end(self, client: str, *, charged_s: float, held_s: float | None) -> None:
        """A lease of the client ended after `held_s`; None: it shall cost nothing."""
        account = self._account(client)
        account.leases -= 1
        self._leases -= 1
        self._charge(account, (held_s or 0.0) - charged_s)
        if held_s is not None:
            news = _NEWS if account.expected_s > _FIRST_GUESS_S else 1.0
            account.expected_s += news * (held_s - account.expected_s)
            self._expected_s = account.expected_s
        if len(self._accounts) > 2 * (self._jobs + self._leases) + _SPARE_ACCOUNTS:
            self._sweep()

    def _account(self, client: str) -> _Account:
        account = self._accounts.get(client)
        if account is None:
            now_s = self._virtual_s
            account = self._accounts[client] = _Account(client, now_s, now_s, expected_s=self._expected_s)
        return account

    def _charge(self, account: _Account, device_s: float) -> None:
        account.tag_s = max(account.floor_s, account.tag_s + device_s / self._weight(account))
        self._place(account)

    def _place(self, account: _Account) -> None:
        """Put the account where it belongs now; an older entry of it is skipped."""
        account.version += 1
        if account.jobs:
            self._turn += 1
            next_tag_s = account.tag_s + account.expected_s / self._weight(account)
            heapq.heappush(self._order, (next_tag_s, self._turn, account.version, account))

    def _weight(self, account: _Account) -> float:
        return self._weights.get(account.client, 1.0)

    def _sweep(self) -> None:
        self._accounts = {
            client: account
            for client, account in self._accounts.items()
            if account.jobs or account.leases or account.tag_s > self._virtual_s
        }
