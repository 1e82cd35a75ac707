"""A device that restarts in the middle of a program: whose fault that is. Time is a number that the test chooses."""

from __future__ import annotations

import pytest

from device_farm.fleet.state import Fleet
from device_farm.fleet.words import (
    Action,
    Blame,
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

POLICY = Policy(suspect_s=100, restart_memory_s=1000, together_s=1, absent_s=500, cool_s=0.1, max_cool_s=0.1)


class Lab:
    """Devices of one model, each in its first boot."""

    def __init__(self, *serials: str, policy: Policy = POLICY) -> None:
        self.fleet: Fleet[str] = Fleet(policy)
        self.boots = dict.fromkeys(serials, 1)
        self.leases: dict[str, Lease] = {}  # by serial
        self.settled: dict[str, object] = {}
        self.notes: list[Note] = []
        for serial in serials:
            self.back(serial, now=0)

    def take(self, actions: list[Action[str]]) -> None:
        for action in actions:
            match action:
                case Run(lease):
                    self.leases[lease.serial] = lease
                case Settle(key, outcome):
                    self.settled[key] = outcome
                case Note():
                    self.notes.append(action)
                case _:
                    pass

    def ask(self, key: str, *, artifact: str = "", now: float) -> None:
        self.take(self.fleet.submit(Job(key, artifact or key, "phone"), now=now))

    def lose(self, serial: str, *, now: float, restarts: bool, in_program: bool = True) -> None:
        boot_id = f"boot {self.boots[serial]}" if in_program else ""
        fault = Fault(Blame.LOST, "DeviceGone", "its link closed", boot_id=boot_id)
        self.boots[serial] += restarts
        self.take(self.fleet.fail(serial, self.leases.pop(serial).fence, fault=fault, now=now))

    def back(self, serial: str, *, now: float) -> None:
        self.take(self.fleet.join(serial, "phone", now=now, boot_id=f"boot {self.boots[serial]}"))

    def complete(self, serial: str, *, now: float) -> None:
        self.take(self.fleet.complete(serial, self.leases.pop(serial).fence, result="5 ms", now=now))

    def at(self, key: str) -> str | None:
        """Where a job runs."""
        return next((serial for serial, lease in self.leases.items() if lease.job.key == key), None)

    @property
    def said(self) -> list[str]:
        return [note.reason for note in self.notes if note.what is Happening.RESTARTED]


def test_what_restarts_two_devices_is_poisoned_and_meets_no_third() -> None:
    lab = Lab("a", "b", "c", "d")
    lab.ask("j", now=1)
    first = lab.at("j")
    assert first is not None
    lab.lose(first, now=2, restarts=True)
    second = lab.at("j")
    assert second not in (None, first)
    lab.lose(str(second), now=40, restarts=True)
    # Both are away, nobody knows yet; two others are idle, and not harmed.
    assert lab.leases == {} and lab.settled == {}
    assert "as many devices as it may harm" in str(lab.fleet.why_waiting("j"))
    lab.back(first, now=50)
    assert lab.leases == {} and lab.settled == {}
    lab.back(str(second), now=80)
    outcome = lab.settled["j"]
    assert isinstance(outcome, Failed) and outcome.error == "Poisoned" and outcome.final
    assert {failure.serial for failure in outcome.evidence} == {first, second}
    assert all("restarted while it ran" in failure.fault.message for failure in outcome.evidence)
    # It is kept: asked under another key, and in another life.
    lab.ask("j2", artifact="j", now=81)
    assert isinstance(lab.settled["j2"], Failed)
    later: Fleet[str] = Fleet(POLICY, memory=lab.fleet.memory())
    later.join("e", "phone", now=0)
    assert not any(isinstance(a, Run) for a in later.submit(Job("j3", "j", "phone"), now=1))


def test_a_link_that_was_lost_and_nothing_more_speaks_against_nobody() -> None:
    lab = Lab("a", "b", "c")
    lab.ask("j", now=1)
    for now in (2, 40):
        serial = str(lab.at("j"))
        lab.lose(serial, now=now, restarts=False)
        lab.back(serial, now=now + 20)
    lab.complete(str(lab.at("j")), now=70)
    assert lab.settled["j"] == Done("5 ms") and lab.fleet.evidence("j") == () and lab.said == []


def test_a_restart_outside_of_the_jobs_own_program_is_not_the_programs() -> None:
    lab = Lab("a", "b", "c")
    lab.ask("j", now=1)
    for now in (2, 40):
        serial = str(lab.at("j"))
        lab.lose(serial, now=now, restarts=True, in_program=False)
        lab.back(serial, now=now + 20)
    lab.complete(str(lab.at("j")), now=70)
    assert lab.settled["j"] == Done("5 ms") and lab.said == ["restarted by itself"] * 2


def test_a_device_that_does_not_come_back_holds_its_job_up_for_a_while_only() -> None:
    lab = Lab("a", "b", "c")
    lab.ask("j", now=1)
    for now in (2, 3):
        lab.lose(str(lab.at("j")), now=now, restarts=True)
    assert lab.at("j") is None
    lab.take(lab.fleet.tick(101))
    assert lab.at("j") is None
    lab.take(lab.fleet.tick(102))  # the first one is given up
    assert lab.at("j") is not None


def test_a_device_that_restarts_by_itself_is_no_witness() -> None:
    """Two devices restart again and again, whatever they run: nothing sound is poisoned for it."""
    lab = Lab("bad1", "bad2", "good")
    for serial in ("bad1", "bad2"):  # nothing runs
        lab.take(lab.fleet.leave(serial, now=1))
        lab.boots[serial] += 1
        lab.back(serial, now=2)
    lab.take(lab.fleet.cool("good", reason="hot", now=2, until_s=100))
    lab.ask("j", now=3)
    for now in (10, 40):
        serial = str(lab.at("j"))
        lab.lose(serial, now=now, restarts=True)
        lab.back(serial, now=now + 20)
    assert all("not held against it: it restarted by itself" in reason for reason in lab.said[2:])
    lab.take(lab.fleet.tick(100))
    assert lab.at("j") == "good"
    lab.complete("good", now=103)
    assert lab.settled["j"] == Done("5 ms") and lab.fleet.evidence("j") == ()


def test_who_restarts_under_what_runs_well_elsewhere_is_no_witness_either() -> None:
    """Found out before the device is back, or after it."""
    for back_first in (True, False):
        lab = Lab("bad", "good")
        lab.take(lab.fleet.cool("good", reason="hot", now=0, until_s=5))
        lab.ask("sound", now=1)
        assert lab.at("sound") == "bad"
        lab.lose("bad", now=2, restarts=True)
        if back_first:
            lab.take(lab.fleet.cool("good", reason="hot", now=3, until_s=20))
            lab.back("bad", now=4)
        lab.take(lab.fleet.tick(20))
        lab.complete("good", now=21)
        if not back_first:
            lab.back("bad", now=22)
            assert lab.said == ["restarted while it ran sound, which runs well elsewhere"]
        accused = len(lab.fleet.evidence("sound"))
        assert accused == back_first
        lab.take(lab.fleet.cool("good", reason="hot", now=23, until_s=60))
        lab.ask("next", now=24)
        lab.lose("bad", now=25, restarts=True)
        lab.back("bad", now=50)
        assert lab.fleet.evidence("next") == () and "not held against it" in lab.said[-1]


def test_devices_that_restart_together_accuse_nobody() -> None:
    """A hub, a host, a power line."""
    lab = Lab("a", "b", "c")
    for key in ("x", "y", "z"):
        lab.ask(key, now=1)
    for serial in ("a", "b", "c"):
        lab.lose(serial, now=5.0, restarts=True)
    for serial in ("a", "b", "c"):
        lab.back(serial, now=40)
    assert all(lab.fleet.evidence(key) == () for key in ("x", "y", "z"))
    assert all("was lost at the same moment" in reason for reason in lab.said)


def test_what_restarts_the_only_device_twice_is_not_tried_on_it_again() -> None:
    lab = Lab("a")
    lab.ask("j", now=1)
    for now in (2, 40):
        assert lab.at("j") == "a"
        lab.lose("a", now=now, restarts=True)
        lab.back("a", now=now + 20)
        lab.take(lab.fleet.tick(now + 25))
    outcome = lab.settled["j"]
    assert isinstance(outcome, Failed) and outcome.final and "2 times on a" in outcome.message


@pytest.mark.parametrize("boot_id", ["", "boot 1"])
def test_a_device_that_does_not_tell_its_boot_accuses_nobody(boot_id: str) -> None:
    fleet: Fleet[str] = Fleet(POLICY)
    fleet.join("a", "phone", now=0)
    (run,) = (a for a in fleet.submit(Job("j", "j", "phone"), now=1) if isinstance(a, Run))
    fault = Fault(Blame.LOST, "DeviceGone", "", boot_id=boot_id)
    fleet.fail("a", run.lease.fence, fault=fault, now=2)
    fleet.join("a", "phone", now=30)
    assert fleet.evidence("j") == ()
