"""Errors become faults and outcomes become errors again."""

from __future__ import annotations

import inspect

import pytest

from device_farm import errors
from device_farm.fleet.devices import file_name, phone_resource
from device_farm.fleet.faults import error_of, fault_of, result_of
from device_farm.fleet.words import Blame, Done, Failed, Failure, Fault

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("cls", ALL)
def test_every_error_survives_the_way_through_the_fleet(cls: type[errors.FarmError]) -> None:
    fault = fault_of(cls("what happened"))
    failed = Failed(fault.error, fault.message, (Failure("a", 7, 0.0, fault),))
    error = error_of(failed)
    assert type(error) is cls and str(error) == "what happened"
    assert error.__notes__ == [f"lease 7 on a: {cls.__name__}: what happened"]


def test_the_blame_follows_the_family() -> None:
    class Subtle(errors.WrongAnswer):
        """Some later refinement."""

    assert fault_of(Subtle("x")).blame is Blame.ARTIFACT
    assert fault_of(errors.DeviceGone("x")).blame is Blame.LOST
    assert fault_of(errors.Unstable("x")).blame is Blame.DEVICE
    assert fault_of(errors.UnsupportedOperator("x")).blame is Blame.CALLER
    assert fault_of(OSError("disk")) == Fault(Blame.LOST, "DeviceGone", "its worker broke down: OSError: disk")


def test_results_pass_and_unknown_names_are_still_farm_errors() -> None:
    assert result_of(Done(3)) == 3
    with pytest.raises(errors.LeaseError, match="x"):
        result_of(Failed("annotations", "x"))


def test_names_for_files_and_resources_are_safe_and_distinct() -> None:
    hostile = ["a b", "a_b", "a'b", 'a"b', "a\nb", "a;rm -rf /", "é", "a/../b", "10.0.0.5:5555"]
    names = {phone_resource(serial) for serial in hostile}
    assert len(names) == len(hostile)
    assert all(set(file_name(serial)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for serial in hostile)
    assert phone_resource("R5CT_20:5555") == "phone_R5CT_5f20_3a5555"
