"""The fleet's state machine, case by case. Time is a number that the test chooses."""

from __future__ import annotations

from typing import Any

import pytest

from device_farm.errors import Fenced, NoSuchDevice
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import (
    Action,
    Blame,
    DeviceState,
    Done,
    Failed,
    Fault,
    Job,
    Lease,
    Outcome,
    Policy,
    Restart,
    Run,
    Settle,
)

WRONG = Fault(Blame.ARTIFACT, "WrongAnswer", "off by 3")
REFUSED = Fault(Blame.DEVICE, "Refused", "disk full")
GONE = Fault(Blame.LOST, "DeviceGone", "unplugged")
POLICY = Policy(lease_s=10, absent_s=60, cool_s=1, max_cool_s=8, quarantine_s=100)


def fleet_of(*serials: str, policy: Policy = POLICY, model: str = "phone") -> Fleet[str]:
    fleet: Fleet[str] = Fleet(policy)
    for serial in serials:
        fleet.join(serial, model, now=0)
    return fleet


def job(key: str, *, artifact: str = "", model: str = "phone", priority: int = 0) -> Job:
    return Job(key, artifact or key, model, priority=priority)


def runs(actions: list[Action[str]]) -> list[Lease]:
    return [action.lease for action in actions if isinstance(action, Run)]


def run(actions: list[Action[str]]) -> Lease:
    (lease,) = runs(actions)
    return lease


def settled(actions: list[Action[str]]) -> dict[str, Outcome[str]]:
    return {action.key: action.outcome for action in actions if isinstance(action, Settle)}


def restarts(actions: list[Action[str]]) -> list[str]:
    return [action.serial for action in actions if isinstance(action, Restart)]


def failed(actions: list[Action[str]], key: str) -> Failed:
    outcome = settled(actions)[key]
    assert isinstance(outcome, Failed)
    return outcome


def state(fleet: Fleet[str], serial: str) -> DeviceState:
    return next(device.state for device in fleet.devices() if device.serial == serial)


def test_a_job_runs_and_is_settled() -> None:
    fleet = fleet_of("a")
    lease = run(fleet.submit(job("j"), now=1))
    assert (lease.serial, lease.job.key, lease.deadline_s) == ("a", "j", 11)
    assert settled(fleet.complete("a", lease.fence, result="5 ms", now=2)) == {"j": Done("5 ms")}
    assert fleet.open_keys() == []


def test_jobs_wait_for_a_device_and_go_in_their_order() -> None:
    fleet = fleet_of()
    fleet.submit(job("first"), now=0)
    fleet.submit(job("second"), now=0)
    fleet.submit(job("urgent", priority=1), now=0)
    order = [run(fleet.join("a", "phone", now=1))]
    for _ in range(2):
        order.append(run(fleet.complete("a", order[-1].fence, result="", now=2)))
    assert [lease.job.key for lease in order] == ["urgent", "first", "second"]


def test_the_same_key_is_one_job_and_then_answered_from_memory() -> None:
    fleet = fleet_of("a", "b")
    lease = run(fleet.submit(job("j"), now=0))
    assert fleet.submit(job("j"), now=0) == []
    fleet.complete("a", lease.fence, result="5 ms", now=1)
    assert fleet.submit(job("j"), now=2) == [Settle("j", Done("5 ms"))]
    fleet.forget("j")
    assert runs(fleet.submit(job("j"), now=3))


def test_memory_is_bounded_and_the_oldest_answer_goes_first() -> None:
    fleet = fleet_of("a", policy=Policy(remember=2))
    for key in ("x", "y", "z"):
        fleet.complete("a", run(fleet.submit(job(key), now=0)).fence, result=key, now=0)
    assert settled(fleet.submit(job("z"), now=0)) and settled(fleet.submit(job("y"), now=0))
    assert runs(fleet.submit(job("x"), now=0))


def test_the_longest_idle_device_is_next() -> None:
    fleet = fleet_of("a", "b")
    first = run(fleet.submit(job("1"), now=0))
    fleet.complete(first.serial, first.fence, result="", now=1)
    assert [first.serial, run(fleet.submit(job("2"), now=2)).serial] == ["a", "b"]


def test_models_do_not_mix() -> None:
    fleet = fleet_of("a")
    assert runs(fleet.submit(job("j", model="tablet"), now=0)) == []
    assert run(fleet.join("t", "tablet", now=1)).serial == "t"


def test_an_expired_lease_restarts_the_device_and_the_job_goes_elsewhere() -> None:
    fleet = fleet_of("a", "b")
    lease = run(fleet.submit(job("j"), now=0))
    assert fleet.wake_at_s == 10
    assert fleet.tick(9.9) == []
    actions = fleet.tick(10)
    assert restarts(actions) == ["a"] and run(actions).serial == "b" and run(actions).fence > lease.fence
    assert state(fleet, "a") is DeviceState.GONE


def test_a_late_result_is_refused_and_changes_nothing() -> None:
    fleet = fleet_of("a", "b")
    old = run(fleet.submit(job("j"), now=0))
    new = run(fleet.tick(10))
    with pytest.raises(Fenced, match=f"lease {old.fence} of a has ended"):
        fleet.complete("a", old.fence, result="late", now=11)
    fleet.join("a", "phone", now=12)
    with pytest.raises(Fenced):
        fleet.fail("a", old.fence, fault=WRONG, now=13)
    assert fleet.evidence("j") == ()
    assert settled(fleet.complete("b", new.fence, result="good", now=14)) == {"j": Done("good")}
    with pytest.raises(Fenced):
        fleet.complete("b", new.fence, result="again", now=15)


def test_the_artifacts_own_failure_is_retried_on_another_device_and_then_poison() -> None:
    fleet = fleet_of("a", "b", "c")
    first = run(fleet.submit(job("j"), now=0))
    second = run(fleet.fail("a", first.fence, fault=WRONG, now=1))
    assert second.serial == "b"
    outcome = failed(fleet.fail("b", second.fence, fault=WRONG, now=2), "j")
    assert (outcome.error, outcome.final) == ("Poisoned", True)
    assert [failure.serial for failure in outcome.evidence] == ["a", "b"] and "off by 3" in outcome.message
    assert failed(fleet.submit(job("j"), now=3), "j") == outcome
    # Another job of the same program does not reach a third device either.
    assert failed(fleet.submit(job("k", artifact="j"), now=3), "k").error == "Poisoned"


def test_poison_reaches_over_models_and_never_a_third_device_at_once() -> None:
    fleet = fleet_of("a")
    fleet.join("t", "tablet", now=0)
    fleet.join("w", "watch", now=0)
    on_a = run(fleet.submit(job("j/phone", artifact="p"), now=0))
    on_t = run(fleet.submit(job("j/tablet", artifact="p", model="tablet"), now=0))
    assert runs(fleet.submit(job("j/watch", artifact="p", model="watch"), now=0)) == []
    assert [lease.serial for lease in runs(fleet.fail("a", on_a.fence, fault=WRONG, now=1))] == ["a"]
    outcomes = settled(fleet.fail("t", on_t.fence, fault=WRONG, now=2))
    assert {key: getattr(o, "error", None) for key, o in outcomes.items()} == {
        "j/tablet": "Poisoned",
        "j/watch": "Poisoned",
    }


def test_a_sound_artifact_is_let_through_after_it_ran() -> None:
    fleet = fleet_of("a")
    fleet.join("t", "tablet", now=0)
    fleet.join("w", "watch", now=0)
    on_a = run(fleet.submit(job("j/phone", artifact="p"), now=0))
    fleet.submit(job("j/tablet", artifact="p", model="tablet"), now=0)
    fleet.submit(job("j/watch", artifact="p", model="watch"), now=0)
    assert run(fleet.complete("a", on_a.fence, result="", now=1)).serial == "w"


def test_the_only_device_of_a_model_is_tried_again_and_the_evidence_kept() -> None:
    fleet = fleet_of("a")
    again = run(fleet.fail("a", run(fleet.submit(job("j"), now=0)).fence, fault=WRONG, now=1))
    assert again.serial == "a"
    outcome = failed(fleet.fail("a", again.fence, fault=WRONG, now=2), "j")
    assert (outcome.error, outcome.final, len(outcome.evidence)) == ("WrongAnswer", True, 2)
    assert failed(fleet.submit(job("j"), now=3), "j") == outcome


def test_an_untried_device_that_is_busy_is_waited_for() -> None:
    fleet = fleet_of("a", "b")
    first = run(fleet.submit(job("j"), now=0))
    other = run(fleet.submit(job("other"), now=0))
    assert runs(fleet.fail("a", first.fence, fault=WRONG, now=1)) == []
    retry = next(lease for lease in runs(fleet.complete("b", other.fence, result="", now=2)))
    assert (retry.serial, retry.job.key) == ("b", "j")


def test_infrastructure_failures_do_not_poison_and_are_not_remembered() -> None:
    fleet = fleet_of("a", "b", "c", policy=Policy(infrastructure_attempts=3))
    lease = run(fleet.submit(job("j"), now=0))
    for _ in range(2):
        lease = run(fleet.fail(lease.serial, lease.fence, fault=REFUSED, now=1))
    outcome = failed(fleet.fail(lease.serial, lease.fence, fault=REFUSED, now=1), "j")
    assert (outcome.error, outcome.final) == ("Refused", False)
    assert sorted(failure.serial for failure in outcome.evidence) == ["a", "b", "c"]
    assert fleet.evidence("j") == ()
    fleet.tick(5)
    fleet.submit(job("j"), now=5)
    assert fleet.open_keys() == ["j"]


def test_a_wrong_request_is_answered_at_once() -> None:
    fleet = fleet_of("a", "b")
    lease = run(fleet.submit(job("j"), now=0))
    fault = Fault(Blame.CALLER, "UnsupportedOperator", "no kernel for erf")
    assert failed(fleet.fail("a", lease.fence, fault=fault, now=1), "j").final
    assert state(fleet, "a") is DeviceState.HEALTHY


def test_a_lost_input_is_asked_for_again() -> None:
    fleet = fleet_of("a")
    lease = run(fleet.submit(job("j"), now=0))
    fault = Fault(Blame.INPUT, "ObjectLost", "its node died")
    assert not failed(fleet.fail("a", lease.fence, fault=fault, now=1), "j").final
    assert runs(fleet.submit(job("j"), now=2))


def test_a_struck_device_cools_longer_each_time_and_a_success_clears_it() -> None:
    fleet = fleet_of("a", policy=Policy(cool_s=1, max_cool_s=3, infrastructure_attempts=9))
    lease = run(fleet.submit(job("j"), now=0))
    now = 0.0
    for pause_s in (1, 2, 3, 3):
        assert runs(fleet.fail("a", lease.fence, fault=REFUSED, now=now)) == []
        assert state(fleet, "a") is DeviceState.COOLING and fleet.wake_at_s == now + pause_s
        now += pause_s
        lease = run(fleet.tick(now))
    fleet.complete("a", lease.fence, result="", now=now)
    assert fleet.devices()[0].strikes == 0


def test_strikes_in_a_row_quarantine_but_not_the_last_device() -> None:
    fleet = fleet_of(
        "a", "b", policy=Policy(quarantine_strikes=1, quarantine_s=100, infrastructure_attempts=9, cool_s=1)
    )
    lease = run(fleet.fail("a", run(fleet.submit(job("j"), now=0)).fence, fault=REFUSED, now=0))
    assert state(fleet, "a") is DeviceState.QUARANTINED
    fleet.fail("b", lease.fence, fault=REFUSED, now=0)
    assert state(fleet, "b") is DeviceState.COOLING
    assert run(fleet.tick(1)).serial == "b"
    fleet.tick(100)
    assert state(fleet, "a") is DeviceState.PROBATION


def test_a_quarantined_device_that_joins_again_stays_quarantined_until_released() -> None:
    fleet = fleet_of("a")
    fleet.quarantine("a", reason="sentinel off by 14 %", now=0)
    fleet.leave("a", now=1)
    fleet.join("a", "phone", now=2)
    assert state(fleet, "a") is DeviceState.QUARANTINED
    fleet.submit(job("j"), now=3)
    assert run(fleet.release("a", now=4)).serial == "a"


def test_a_device_that_calls_a_sound_artifact_broken_takes_the_blame() -> None:
    fleet = fleet_of("liar", "b")
    for n in range(3):
        fleet.tick(10 * n)
        first = run(fleet.submit(job(f"j{n}"), now=10 * n))
        if first.serial == "liar":
            first = run(fleet.fail("liar", first.fence, fault=WRONG, now=10 * n))
        assert isinstance(settled(fleet.complete("b", first.fence, result="", now=10 * n))[f"j{n}"], Done)
    assert next(d.strikes for d in fleet.devices() if d.serial == "liar") >= 1


def test_a_device_that_leaves_gives_its_job_back() -> None:
    fleet = fleet_of("a", "b")
    lease = run(fleet.submit(job("j"), now=0))
    actions = fleet.leave("a", now=1)
    assert run(actions).serial == "b" and restarts(actions) == []
    with pytest.raises(Fenced):
        fleet.complete("a", lease.fence, result="", now=2)


def test_a_device_that_joins_while_leased_has_lost_its_job() -> None:
    fleet = fleet_of("a")
    lease = run(fleet.submit(job("j"), now=0))
    assert runs(fleet.join("a", "phone", now=1)) == []  # it cools first
    retry = run(fleet.tick(2))
    assert retry.fence > lease.fence


def test_a_device_may_come_back_as_another_model() -> None:
    fleet = fleet_of("a")
    fleet.join("a", "tablet", now=1)
    assert runs(fleet.submit(job("j"), now=2)) == []
    assert run(fleet.submit(job("t", model="tablet"), now=2)).serial == "a"


def test_jobs_of_an_absent_model_end_with_what_is_known() -> None:
    fleet = fleet_of("a")
    fleet.submit(job("j", model="phnoe"), now=0)
    assert fleet.wake_at_s == 60
    outcome = failed(fleet.tick(60), "j")
    assert outcome.error == "NoSuchDevice" and not outcome.final
    assert "'phnoe'" in outcome.message and "models with usable devices: phone" in outcome.message
    assert failed(fleet.submit(job("k", model="phnoe"), now=61), "k").error == "NoSuchDevice"


def test_absence_counts_from_the_last_usable_moment() -> None:
    fleet = fleet_of("a")
    fleet.leave("a", now=100)
    fleet.submit(job("j"), now=130)
    assert settled(fleet.tick(159)) == {}
    fleet.join("a", "phone", now=159)
    assert fleet.open_keys() == ["j"] and settled(fleet.tick(161)) == {}


def test_unknown_devices_are_named() -> None:
    with pytest.raises(NoSuchDevice, match="'zz'; known: a"):
        fleet_of("a").quarantine("zz", reason="", now=0)


def test_fences_continue_an_earlier_life() -> None:
    fleet: Fleet[str] = Fleet(POLICY, first_fence=1000)
    fleet.join("a", "phone", now=0)
    assert run(fleet.submit(job("j"), now=0)).fence == 1000


def test_time_that_goes_backwards_is_ignored() -> None:
    fleet = fleet_of("a")
    fleet.tick(100)
    assert run(fleet.submit(job("j"), now=3)).deadline_s == 110


@pytest.mark.parametrize(("field", "value"), [("lease_s", 0), ("poison_devices", 0), ("cool_s", float("nan"))])
def test_impossible_policies_are_refused(field: str, value: float) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
        Policy(**changed)


def avoiding(key: str, *serials: str) -> Job:
    return Job(key, "net", "phone", avoid=frozenset(serials))


def test_a_job_keeps_off_the_devices_that_it_avoids() -> None:
    fleet = fleet_of("a", "b", "c")
    assert run(fleet.submit(avoiding("1", "a", "b"), now=1)).serial == "c"
    assert runs(fleet.submit(avoiding("2", "a", "b"), now=1)) == []  # c is usable, so it is waited for
    other = run(fleet.complete("c", 1, result="5 ms", now=2))
    assert (other.serial, other.job.key) == ("c", "2")
    assert runs(fleet.submit(avoiding("3", "a", "b"), now=2)) == []
    fleet.leave("c", now=3)
    assert {lease.job.key for lease in fleet.leases()} == {"2", "3"}  # a and b are better than nobody


def test_a_crash_on_the_device_that_was_wanted_is_tried_elsewhere_all_the_same() -> None:
    fleet = fleet_of("a", "b")
    lease = run(fleet.submit(avoiding("1", "b"), now=1))
    assert lease.serial == "a"
    assert run(fleet.fail("a", lease.fence, fault=WRONG, now=2)).serial == "b"
