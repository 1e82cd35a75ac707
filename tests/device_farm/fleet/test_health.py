"""Rest, quarantine, probation and deadlines of devices, case by case."""

from __future__ import annotations

import math

import pytest

from device_farm.errors import NoSuchDevice
from device_farm.fleet.faults import error_of
from device_farm.fleet.memory import Memory
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import (
    Action,
    Blame,
    DeviceState,
    DeviceStatus,
    Done,
    Failed,
    Fault,
    Happening,
    Job,
    Lease,
    Note,
    Policy,
    Run,
    Settle,
)

REFUSED = Fault(Blame.DEVICE, "Refused", "disk full")
WRONG = Fault(Blame.ARTIFACT, "WrongAnswer", "off by 3")
POLICY = Policy(
    lease_s=10,
    cool_s=1,
    quarantine_strikes=1,
    quarantine_s=100,
    max_quarantine_s=300,
    unfit_times=3,
    unfit_rest_s=500,
    unfit_wait_s=1000,
    cooling_s=200,
    connecting_s=30,
    infrastructure_attempts=99,
    max_attempts=99,
)


def unfit(rest_s: float = 20.0) -> Fault:
    return Fault(Blame.UNFIT, "Unfit", "46 C", retry_after_s=rest_s)


def fleet_of(*serials: str, policy: Policy = POLICY) -> Fleet[str]:
    fleet: Fleet[str] = Fleet(policy)
    for serial in serials:
        fleet.join(serial, "phone", now=0)
    return fleet


def submit(fleet: Fleet[str], key: str, *, now: float) -> Lease:
    return lease(fleet.submit(Job(key, key, "phone"), now=now))


def lease(actions: list[Action[str]]) -> Lease:
    (lease,) = [action.lease for action in actions if isinstance(action, Run)]
    return lease


def notes(actions: list[Action[str]]) -> list[tuple[Happening, str]]:
    return [(action.what, action.subject) for action in actions if isinstance(action, Note)]


def failures(actions: list[Action[str]]) -> list[Failed]:
    return [a.outcome for a in actions if isinstance(a, Settle) and isinstance(a.outcome, Failed)]


def strike(fleet: Fleet[str], serial: str, key: str, *, now: float, fault: Fault = REFUSED) -> DeviceStatus:
    """Have exactly this device fail a new job, which another device or nobody then completes."""
    begun = submit(fleet, key, now=now)
    while begun.serial != serial:
        other, begun = begun, submit(fleet, key + "'", now=now)
        fleet.complete(other.serial, other.fence, result="", now=now)
        key += "'"
    fleet.fail(serial, begun.fence, fault=fault, now=now)
    for left in fleet.leases():
        fleet.complete(left.serial, left.fence, result="", now=now)
    return fleet.device(serial)


# Unfit


def test_an_unfit_device_rests_as_long_as_it_asks_and_the_job_goes_elsewhere() -> None:
    fleet = fleet_of("a", "b")
    begun = submit(fleet, "j", now=0)
    again = lease(fleet.fail(begun.serial, begun.fence, fault=unfit(20), now=1))
    assert (begun.serial, again.serial) == ("a", "b")
    status = fleet.device("a")
    assert (status.state, status.until_s, status.strikes, status.failed) == (DeviceState.COOLING, 21, 0, 0)
    assert "46 C" in status.reason
    fleet.tick(21)
    assert fleet.device("a").state is DeviceState.HEALTHY


@pytest.mark.parametrize(("asked_s", "rests_s"), [(-5, 1), (0, 1), (math.nan, 1), (1e9, 200), (math.inf, 200)])
def test_a_device_does_not_decide_alone_how_long_it_rests(asked_s: float, rests_s: float) -> None:
    fleet = fleet_of("a")
    fleet.fail("a", submit(fleet, "j", now=0).fence, fault=unfit(asked_s), now=0)
    assert fleet.device("a").until_s == rests_s


def test_being_unfit_is_no_attempt_however_often() -> None:
    fleet = fleet_of("a", policy=Policy(infrastructure_attempts=1, max_attempts=1, unfit_wait_s=1e6))
    begun, now = submit(fleet, "j", now=0), 0.0
    for _ in range(50):
        assert failures(fleet.fail("a", begun.fence, fault=unfit(), now=now)) == []
        now += 20
        begun = lease(fleet.tick(now))
    actions = fleet.complete("a", begun.fence, result="5 ms", now=now)
    assert Settle("j", Done("5 ms")) in actions


def test_unfit_again_and_again_is_quarantined_with_its_reason() -> None:
    fleet = fleet_of("a", "b")
    for n in range(2):
        assert strike(fleet, "a", f"j{n}", now=30 * n, fault=unfit()).state is DeviceState.COOLING
        fleet.tick(30 * n + 20)
    status = strike(fleet, "a", "j2", now=60, fault=unfit())
    assert status.state is DeviceState.QUARANTINED and status.reason.startswith("unfit 3 times in a row: Unfit: 46 C")


def test_a_completed_job_forgives_having_been_unfit() -> None:
    fleet = fleet_of("a", "b")
    for n in range(10):
        assert strike(fleet, "a", f"j{n}", now=100 * n, fault=unfit()).unfit == 1
        fleet.tick(100 * n + 50)
        begun = submit(fleet, f"k{n}", now=100 * n + 50)
        other = submit(fleet, f"l{n}", now=100 * n + 50)
        for well in (begun, other):
            fleet.complete(well.serial, well.fence, result="", now=100 * n + 51)
    assert fleet.device("a").state is DeviceState.HEALTHY


def test_resting_too_long_in_all_is_quarantined_too() -> None:
    fleet = fleet_of("a", "b")
    assert strike(fleet, "a", "j0", now=0, fault=unfit(200)).state is DeviceState.COOLING
    fleet.tick(300)
    assert strike(fleet, "a", "j1", now=300, fault=unfit(400)).state is DeviceState.COOLING
    policy = Policy(unfit_rest_s=300, cooling_s=200)
    fleet = fleet_of("a", "b", policy=policy)
    strike(fleet, "a", "j0", now=0, fault=unfit(200))
    fleet.tick(300)
    assert strike(fleet, "a", "j1", now=300, fault=unfit(200)).state is DeviceState.QUARANTINED


def test_the_last_of_its_model_is_never_quarantined_for_being_unfit() -> None:
    fleet = fleet_of("a")
    begun, now = submit(fleet, "j", now=0), 0.0
    for _ in range(10):
        fleet.fail("a", begun.fence, fault=unfit(), now=now)
        assert fleet.device("a").state is DeviceState.COOLING
        now += 20
        begun = lease(fleet.tick(now))


def test_jobs_of_a_model_that_is_unfit_altogether_wait_are_told_why_and_end_at_a_deadline() -> None:
    fleet = fleet_of("a", "b", policy=Policy(unfit_times=99, unfit_rest_s=1e6, unfit_wait_s=100, cooling_s=900))
    first, second = submit(fleet, "j", now=0), submit(fleet, "k", now=0)
    fleet.fail("a", first.fence, fault=unfit(500), now=10)
    actions = fleet.fail("b", second.fence, fault=unfit(500), now=20)
    assert notes(actions) == [(Happening.UNFIT, "phone")]
    assert "no device of model 'phone' was fit for 0 s (a cooling, Unfit: 46 C" in str(fleet.why_waiting("j"))
    assert failures(fleet.tick(119)) == []
    given_up = failures(fleet.tick(120))
    assert [(failed.error, failed.final) for failed in given_up] == [("Unfit", False)] * 2
    assert "was fit for 100 s" in given_up[0].message
    assert given_up[0].evidence[0].fault.message == "46 C"
    # Asked again it waits anew, and is served as soon as a device is fit.
    assert failures(fleet.submit(Job("j", "j", "phone"), now=130)) == []
    fleet.release("a", now=140)
    assert fleet.lease_of("a") is not None and fleet.why_waiting("j") is None


def test_a_job_that_no_device_is_fit_for_ends_although_the_devices_serve_others() -> None:
    fleet = fleet_of("a", "b", policy=Policy(unfit_wait_s=100, unfit_times=99, unfit_rest_s=1e6))
    now, given_up = 0.0, list[Failed]()
    begun: Lease | None = submit(fleet, "heats up", now=now)
    while begun is not None:
        actions = fleet.fail(begun.serial, begun.fence, fault=unfit(5), now=now)
        given_up = failures(actions)
        if given_up:
            break
        now += 10
        fleet.tick(now)
        begun = next((each for each in fleet.leases() if each.job.key == "heats up"), None)
    assert now == 100 and given_up[0].error == "Unfit"
    assert "no device was fit for it for 100 s" in str(error_of(given_up[0]))


# Quarantine and probation


def test_back_from_quarantine_the_next_job_decides() -> None:
    fleet = fleet_of("a", "b")
    assert strike(fleet, "a", "j0", now=0).until_s == 100
    assert notes(fleet.tick(100)) == [(Happening.PROBATION, "a")]
    fleet.quarantine("b", reason="out of the way", now=100)
    begun = submit(fleet, "j1", now=101)
    assert fleet.device("a").state is DeviceState.PROBATION
    actions = fleet.complete("a", begun.fence, result="", now=102)
    assert notes(actions) == [(Happening.RETURNED, "a")]
    assert fleet.device("a").state is DeviceState.HEALTHY


@pytest.mark.parametrize("fault", [REFUSED, unfit()], ids=["strike", "unfit"])
def test_another_offence_on_probation_is_a_longer_quarantine_up_to_a_bound(fault: Fault) -> None:
    fleet = fleet_of("a", "b", policy=Policy(quarantine_strikes=2, quarantine_s=100, max_quarantine_s=300))
    strike(fleet, "a", "j", now=0)
    fleet.tick(5)
    now, lengths_s = 5.0, []
    for n in range(4):
        status = strike(fleet, "a", f"j{n}", now=now, fault=REFUSED if n == 0 else fault)
        assert status.state is DeviceState.QUARANTINED
        lengths_s.append(status.until_s - now)
        now = status.until_s
        fleet.tick(now)
    assert lengths_s == [100, 200, 300, 300]


def test_an_old_quarantine_is_forgotten_by_serving_longer_than_it_lasted() -> None:
    fleet = fleet_of("a", "b")
    strike(fleet, "a", "j0", now=0)
    fleet.tick(100)
    for n in range(2):
        begun = submit(fleet, f"k{n}", now=100)
        fleet.complete(begun.serial, begun.fence, result="", now=100)
    assert strike(fleet, "a", "j1", now=150).until_s == 350  # too soon: twice as long
    fleet.tick(350)
    for n in range(2, 4):
        begun = submit(fleet, f"k{n}", now=350)
        fleet.complete(begun.serial, begun.fence, result="", now=350)
    assert strike(fleet, "a", "j2", now=600).until_s == 700


def test_an_operators_quarantine_is_not_shortened_by_what_happens_meanwhile() -> None:
    fleet = fleet_of("a", "b")
    begun = submit(fleet, "j", now=0)
    fleet.quarantine("a", reason="its battery swells", now=1)
    fleet.fail("a", begun.fence, fault=REFUSED, now=2)
    status = fleet.device("a")
    assert (status.state, status.until_s, status.reason) == (DeviceState.QUARANTINED, math.inf, "its battery swells")


# Every state has a deadline


def test_a_device_that_is_not_reached_is_told_of_again_and_again() -> None:
    fleet = fleet_of()
    fleet.expect("a", now=0)
    assert fleet.device("a").state is DeviceState.CONNECTING and fleet.wake_at_s == 30
    (note,) = fleet.tick(30)
    assert note == Note(Happening.STUCK, "a", "connecting for 30 s")
    assert notes(fleet.tick(60)) == [(Happening.STUCK, "a")]
    fleet.join("a", "phone", now=61)
    assert fleet.wake_at_s is None or fleet.tick(1000) == []


def test_a_device_that_stays_away_is_told_of_with_its_reason() -> None:
    fleet = fleet_of("a", "b")
    fleet.leave("a", now=10, reason="was unplugged")
    assert fleet.tick(40) == [Note(Happening.STUCK, "a", "gone for 30 s: was unplugged")]
    fleet.dismiss("a", now=50)
    assert fleet.tick(1000) == []
    with pytest.raises(NoSuchDevice, match="'a'; known: b"):
        fleet.device("a")


def test_cooling_for_too_long_becomes_a_quarantine_where_others_serve() -> None:
    fleet = fleet_of("a", "b")
    fleet.cool("a", reason="36 C battery", now=0, until_s=math.inf)
    assert notes(fleet.tick(200)) == [(Happening.QUARANTINED, "a")]
    assert fleet.device("a").reason == "cooling for 200 s: 36 C battery"
    fleet.cool("b", reason="39 C battery", now=200, until_s=math.inf)
    assert notes(fleet.tick(400)) == [(Happening.PROBATION, "a"), (Happening.QUARANTINED, "b")]
    fleet.cool("a", reason="too hot", now=400, until_s=500)
    fleet.tick(450)
    fleet.cool("a", reason="still too hot", now=450, until_s=10_000)
    fleet.quarantine("b", reason="", now=451)
    assert notes(fleet.tick(600)) == [(Happening.STUCK, "a")]  # the last one
    assert fleet.device("a").state is DeviceState.COOLING


def test_a_quarantine_without_end_is_told_of_every_day() -> None:
    fleet = fleet_of("a")
    fleet.quarantine("a", reason="sentinel off", now=0)
    day = POLICY.quarantine_note_s
    assert fleet.tick(day) == [Note(Happening.STUCK, "a", f"quarantined for {day:g} s: sentinel off")]
    assert notes(fleet.tick(2 * day)) == [(Happening.STUCK, "a")]


# A later life


def test_a_later_life_knows_quarantines_evidence_and_answers() -> None:
    fleet = fleet_of("a", "b")
    done = submit(fleet, "done", now=50)
    fleet.complete("a", done.fence, result="5 ms", now=50)
    accused = submit(fleet, "bad", now=50)
    fleet.fail(accused.serial, accused.fence, fault=WRONG, now=51)
    fleet.quarantine("b", reason="sentinel off", now=60, until_s=200)
    later: Fleet[str] = Fleet(POLICY, memory=fleet.memory(), now=1000)
    assert later.submit(Job("done", "done", "phone"), now=1000) == [Settle("done", Done("5 ms"))]
    assert [failure.serial for failure in later.evidence("bad")] == [accused.serial]
    assert later.evidence("bad")[0].at_s == 991
    later.join("b", "phone", now=1001)
    assert later.device("b").state is DeviceState.QUARANTINED and later.device("b").until_s == 1140
    later.join("a", "phone", now=1002)
    assert submit(later, "new", now=1003).fence > accused.fence


def test_a_memory_may_hold_only_what_a_journal_has() -> None:
    fleet: Fleet[str] = Fleet(POLICY, memory=Memory(answers={"j": Done("5 ms")}), first_fence=7)
    assert fleet.submit(Job("j", "j", "phone"), now=0) == [Settle("j", Done("5 ms"))]
    fleet.join("a", "phone", now=0)
    assert submit(fleet, "k", now=0).fence == 7
