"""Shares between clients: what each gets of the devices, whatever it asks for and however long its leases are."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_farm.fleet.fair import FairQueue
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Action, Blame, Fault, Job, Lease, Policy, Run

weights = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2)


def served(
    queue: FairQueue, clients: list[str], *, seconds: dict[str, float], devices: int, until_s: float
) -> dict[str, float]:
    """Device-seconds that each got on some devices, while all of them always wait."""
    sequence = itertools.count()
    for client in clients:
        for _ in range(devices + 1):
            queue.push(client, next(sequence), client)
    got: dict[str, float] = dict.fromkeys(clients, 0.0)
    running: list[tuple[float, int, str, float]] = []
    now = 0.0
    while now < until_s:
        while len(running) < devices:
            _, client = queue.pop()
            queue.push(client, next(sequence), client)
            charged_s = queue.begin(client)
            heapq.heappush(running, (now + seconds[client], next(sequence), client, charged_s))
        now, _, client, charged_s = heapq.heappop(running)
        queue.end(client, charged_s=charged_s, held_s=seconds[client])
        got[client] += seconds[client]
    return got


@settings(max_examples=60)
@given(weights=weights, lengths=st.lists(st.floats(1.0, 30.0), min_size=4, max_size=4), devices=st.integers(1, 8))
def test_shares_converge_to_the_weights_whatever_the_leases_last(
    weights: dict[str, float], lengths: list[float], devices: int
) -> None:
    clients = sorted(weights)
    seconds = dict(zip("abcd", lengths, strict=True))
    until_s = 3_000.0
    got = served(FairQueue(weights), clients, seconds=seconds, devices=devices, until_s=until_s)
    whole = sum(weights.values())
    for client in clients:
        fair_s = devices * until_s * weights[client] / whole
        # Off by leases under way and by the first guess, which do not grow with time.
        assert abs(got[client] - fair_s) <= 0.02 * fair_s + 3 * devices * max(lengths)


@settings(max_examples=60)
@given(weights=weights, seed=st.integers(0, 100))
def test_nobody_waits_longer_than_the_others_need_for_their_shares(weights: dict[str, float], seed: int) -> None:
    """Random lengths, one device: between two leases of a client the others get what their weights allow."""
    rng = random.Random(seed)
    queue = FairQueue(weights)
    clients = sorted(weights)
    for n, client in enumerate(clients * 2):
        queue.push(client, n, client)
    longest_s = 10.0
    since: dict[str, float] = dict.fromkeys(clients, 0.0)
    for n in range(100, 1100):
        _, client = queue.pop()
        queue.push(client, n, client)
        charged_s = queue.begin(client)
        held_s = rng.uniform(1.0, longest_s)
        queue.end(client, charged_s=charged_s, held_s=held_s)
        since[client] = 0.0
        for other in clients:
            if other != client:
                since[other] += held_s
                # The others catch up with its tag, which its longest lease moved ahead, and pass it by one lease each.
                rest = sum(weights.values()) - weights[other]
                assert since[other] <= 2 * longest_s * rest / weights[other] + 3 * longest_s * len(clients)


def test_a_client_that_pauses_gets_no_credit_for_it() -> None:
    queue = FairQueue({})
    served(queue, ["a"], seconds={"a": 1.0}, devices=1, until_s=100.0)
    order = []
    for n in range(1000, 1050):
        queue.push("late", n, "late")
    for _ in range(20):
        _, client = queue.pop()
        order.append(client)
        queue.push(client, len(order) + 5000, client)
        queue.end(client, charged_s=queue.begin(client), held_s=1.0)
    assert abs(Counter(order)["late"] - 10) <= 2


def test_a_debt_is_remembered_while_others_still_work() -> None:
    """A client with few jobs at a time does not get more by being out of the queue now and then."""
    queue = FairQueue({})
    queue.push("hog", 0, "hog")
    for n in range(50):
        queue.push("steady", n, "steady")
    got: defaultdict[str, int] = defaultdict(int)
    for n in range(40):
        _, client = queue.pop()
        charged_s = queue.begin(client)
        got[client] += 1
        queue.end(client, charged_s=charged_s, held_s=5.0 if client == "hog" else 1.0)
        if client == "hog":
            queue.push("hog", 1000 + n, "hog")
    assert 5 <= got["hog"] <= 8  # a sixth of the leases is half of the time


def test_a_free_lease_costs_nothing() -> None:
    queue = FairQueue({})
    for n in range(20):
        queue.push("unlucky", n, "unlucky")
        queue.push("other", n, "other")
    got: Counter[str] = Counter()
    for _ in range(20):
        _, client = queue.pop()
        charged_s = queue.begin(client)
        free = client == "unlucky" and got[client] < 5
        queue.end(client, charged_s=charged_s, held_s=None if free else 1.0)
        got[client] += 1
    assert 11 <= got["unlucky"] <= 14


def test_ever_new_names_do_not_starve_anybody() -> None:
    queue = FairQueue({})
    for client in ("stays", "guest"):
        queue.push(client, 0, client)
    got = 0
    for n in range(1000):
        _, client = queue.pop()
        queue.end(client, charged_s=queue.begin(client), held_s=1.0)
        got += client == "stays"
        again = client if client == "stays" else f"guest {n}"
        queue.push(again, n, again)
    assert got >= 300


def test_books_do_not_grow_with_clients_that_have_gone() -> None:
    queue = FairQueue({})
    queue.push("stays", 0, "stays")
    for n in range(5_000):
        queue.push(f"guest {n}", n, "job")
        while queue:
            _, key = queue.pop()
            client = "stays" if key == "stays" else f"guest {n}"
            queue.end(client, charged_s=queue.begin(client), held_s=1.0)
        queue.push("stays", n, "stays")
    assert len(queue._accounts) < 300


# In a fleet


def leases(actions: list[Action[str]]) -> list[Lease]:
    return [action.lease for action in actions if isinstance(action, Run)]


def one_phone(policy: Policy) -> Fleet[str]:
    fleet: Fleet[str] = Fleet(policy)
    fleet.join("a", "phone", now=0)
    return fleet


def test_a_late_search_gets_its_share_although_a_thousand_jobs_wait_before_it() -> None:
    fleet = one_phone(Policy(shares={"small": 3.0}))
    (lease,) = leases(fleet.submit(Job("warm-up", "w", "phone", client="big"), now=0))
    for n in range(1000):
        fleet.submit(Job(f"big {n}", f"big {n}", "phone", client="big"), now=0)
    for n in range(30):
        fleet.submit(Job(f"small {n}", f"small {n}", "phone", client="small"), now=0)
    order = []
    for now in range(1, 41):
        (lease,) = leases(fleet.complete("a", lease.fence, result="", now=now))
        order.append(lease.job.client)
    assert Counter(order)["small"] == pytest.approx(30, abs=1)


def test_shares_may_change_meanwhile() -> None:
    fleet = one_phone(Policy())
    (lease,) = leases(fleet.submit(Job("0", "0", "phone", client="x"), now=0))
    for n in range(1, 100):
        fleet.submit(Job(f"x{n}", f"x{n}", "phone", client="x"), now=0)
        fleet.submit(Job(f"y{n}", f"y{n}", "phone", client="y"), now=0)
    fleet.set_share("y", 4.0)
    order = []
    for now in range(1, 51):
        (lease,) = leases(fleet.complete("a", lease.fence, result="", now=now))
        order.append(lease.job.client)
    assert Counter(order)["y"] == pytest.approx(40, abs=2)
    with pytest.raises(ValueError, match="share of 'y' must be a finite number above 0, got 0"):
        fleet.set_share("y", 0)
    with pytest.raises(ValueError, match="share of 'x'"):
        Policy(shares={"x": float("inf")})


def test_unfit_leases_are_not_charged() -> None:
    fleet = one_phone(Policy(unfit_times=1000, unfit_rest_s=1e6))
    for n in range(20):
        fleet.submit(Job(f"x{n}", f"x{n}", "phone", client="x"), now=0)
        fleet.submit(Job(f"y{n}", f"y{n}", "phone", client="y"), now=0)
    now, got = 0.0, Counter[str]()
    while len(fleet.open_keys()) > 20:
        if not (live := fleet.leases()):
            now = fleet.wake_at_s or now
            fleet.tick(now)
            continue
        lease, now = live[0], now + 10
        if lease.job.client == "x" and now % 3 < 2 and got["x"] < 5:
            fleet.fail("a", lease.fence, fault=Fault(Blame.UNFIT, "Unfit", "hot", 1.0), now=now)
        else:
            got[lease.job.client] += 1
            fleet.complete("a", lease.fence, result="", now=now)
    assert got["x"] == pytest.approx(got["y"], abs=2)
