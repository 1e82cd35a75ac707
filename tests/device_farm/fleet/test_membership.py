"""Which devices a farm has, whatever is attached, detached, plugged in and pulled out in whichever order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.errors import NoSuchDevice
from device_farm.fleet.devices import AdbDevice, DeviceSpec, LocalDevice
from device_farm.fleet.entries import Entry, Kind
from device_farm.fleet.membership import Membership


class Staff:
    """Who is employed, by serial."""

    def __init__(self) -> None:
        self.there: dict[str, DeviceSpec] = {}

    def employ(self, spec: DeviceSpec) -> None:
        assert spec.serial not in self.there
        self.there[spec.serial] = spec

    async def dismiss(self, serial: str) -> None:
        await asyncio.sleep(0)
        del self.there[serial]


def device(serial: str, node_id: str = "home") -> LocalDevice:
    return LocalDevice(name=serial, node_id=node_id)


def membership(*configured: str, attached: dict[str, Any] | None = None) -> tuple[Membership, Staff, list[Entry]]:
    told: list[Entry] = []
    staff = Staff()
    members = Membership([device(serial) for serial in configured], tell=told.append)
    members.begin(staff, attached or {})
    return members, staff, told


def test_a_phone_moves_from_host_to_host() -> None:
    async def run() -> None:
        members, staff, _ = membership("c")
        await members.listed("h1", [device("p", "n1"), device("q", "n1")])
        await members.listed("h2", [device("p", "n2")])
        assert staff.there == members.specs == {"c": device("c"), "q": device("q", "n1"), "p": device("p", "n2")}
        # The old host says once more what it has, now without the phone; it does not take it from the new one.
        await members.listed("h1", [device("q", "n1")])
        assert members.specs["p"] == device("p", "n2")
        # A host that came back as another node: the same phones, pinned to that.
        await members.listed("h3", [device("q", "n3")])
        assert staff.there["q"] == device("q", "n3")

    asyncio.run(run())


def test_what_is_detached_by_hand_stays_away_until_it_is_plugged_in_again() -> None:
    async def run() -> None:
        members, staff, told = membership("c")
        await members.listed("h", [device("p")])
        for serial in ("p", "c"):
            await members.detach(serial)
            with pytest.raises(NoSuchDevice, match=f"no device '{serial}' is attached; there are"):
                await members.detach(serial)
        await members.listed("h", [device("p"), device("q")])
        assert list(staff.there) == ["q"]
        await members.listed("h", [device("q")])
        await members.listed("h", [device("p"), device("q")])
        assert sorted(staff.there) == ["p", "q"]
        await members.attach(device("c", "elsewhere"))
        assert staff.there["c"] == device("c", "elsewhere")
        assert [(e.kind, e.serial) for e in told] == [
            (Kind.DETACHED, "p"),
            (Kind.DETACHED, "c"),
            (Kind.ATTACHED, "c"),
        ]

    asyncio.run(run())


@pytest.mark.parametrize(
    "spec",
    [
        LocalDevice(cpu=3, model="m", threads=2, cpus=(3, 4)),
        AdbDevice('it\'s "R5" $(reboot)', server="lab-2:5038", model="a b", node_id="ab"),
    ],
)
def test_the_next_life_attaches_what_this_one_did(spec: DeviceSpec) -> None:
    async def run() -> None:
        members, _, told = membership("c", "d")
        await members.attach(spec)
        await members.detach("d")
        attached = {entry.serial: entry.data if entry.kind is Kind.ATTACHED else None for entry in told}
        _, staff, _ = membership("c", "d", attached=attached)
        assert staff.there == {"c": device("c"), spec.serial: spec}

    asyncio.run(run())


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "Path", "fields": {}},
        {"kind": "DeviceSpec", "fields": {}},
        {"kind": "re", "fields": {}},
        {"kind": None},
        {},
        {"kind": "LocalDevice", "fields": {"cpu": "rm -rf"}},
        {"kind": "LocalDevice"},
    ],
)
def test_what_no_device_is_written_as_is_not_attached(data: dict[str, Any]) -> None:
    async def run() -> None:
        assert list(membership("c", attached={"p": data})[1].there) == ["c"]

    asyncio.run(run())


_SERIALS = st.sampled_from(["a", "b", "c"])
_EVENTS = st.one_of(
    st.tuples(st.just("listed"), st.sampled_from(["h1", "h2"]), st.lists(_SERIALS, unique=True)),
    st.tuples(st.just("attach"), _SERIALS),
    st.tuples(st.just("detach"), _SERIALS),
)


@given(st.lists(_EVENTS, max_size=12))
def test_whatever_happens_those_who_ought_to_be_there_are(events: list[Any]) -> None:
    async def run() -> None:
        members, staff, _ = membership("a")
        # All at once: some events come while others are carried out.
        calls = []
        for kind, *details in events:
            match kind, details:
                case "listed", [host, serials]:
                    calls.append(members.listed(host, [replace(device(s), node_id=host) for s in serials]))
                case "attach", [serial]:
                    calls.append(members.attach(device(serial, "by hand")))
                case "detach", [serial]:
                    calls.append(members.detach(serial))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(result is None or isinstance(result, NoSuchDevice) for result in results)
        assert staff.there == members.specs == members._wanted()

    asyncio.run(run())
