"""The phones of a real adb server, as a host's list; no Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_farm.fleet.adb_phones import AdbPhones
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer


@pytest.fixture(scope="module")
def phones() -> Iterator[EmulatedPhones]:
    with EmulatedPhones(["emu-x86-fast"] * 2, pace=0.0) as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateAdbServer]:
    with AdbServer.start_private(home=tmp_path / "adb") as running:
        yield running


def connected(server: AdbServer) -> set[str]:
    return {device.serial for device in server.devices() if device.state == "device"}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def follow(source: AdbPhones) -> list[list[str]]:
    """The lists that it tells, in a thread that ends with the server."""
    told: list[list[str]] = []

    def run() -> None:
        for specs in source.follow():
            told.append([spec.serial for spec in specs])

    threading.Thread(target=_quietly, args=(run,), daemon=True).start()
    return told


def _quietly(run: Callable[[], None]) -> None:
    from contextlib import suppress

    from device_farm.errors import FarmError

    with suppress(FarmError):
        run()


def test_a_phone_by_tcp_that_the_server_has_lost_is_connected_again(
    phones: EmulatedPhones, server: PrivateAdbServer
) -> None:
    first, second = phones.addresses
    server.connect(first)  # by its owner; the farm was not told of it
    told = follow(AdbPhones(str(server), home=str(server.home), look_every_s=0.3))
    until(lambda: told == [[first]])
    server.disconnect(first)
    until(lambda: connected(server) == {first})
    assert told == [[first]]  # to the farm it was never away
    server.connect(second)
    until(lambda: told[-1] == [first, second] or told[-1] == [second, first])


def test_phones_that_are_named_are_connected_and_others_left_alone(
    phones: EmulatedPhones, server: PrivateAdbServer
) -> None:
    first, second = phones.addresses
    server.connect(second)
    told = follow(AdbPhones(str(server), home=str(server.home), only=(first,), look_every_s=0.3))
    until(lambda: connected(server) == {first, second})
    assert told == [[first]]
    server.disconnect(second)
    server.disconnect(first)
    until(lambda: connected(server) == {first})
    time.sleep(0.5)
    assert connected(server) == {first}
