"""`npas devices` with a real adb server and emulated phones."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_farm.emulator.faults import PhoneFault
from device_farm.fleet.entries import Entry, Kind
from device_farm.fleet.journal import Journal
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer
from npas_ray.cli import main
from npas_ray.config import AdbDevice, LocalDevice, SearchConfig
from npas_ray.errors import InfrastructureError
from npas_ray.runs.devices import is_wanted, phone_count, settled
from npas_ray.runs.directory import RunDirectory

FAST, SLOW = "emu-x86-fast", "emu-x86-slow"


@pytest.fixture(scope="module")
def phones() -> Iterator[EmulatedPhones]:
    with EmulatedPhones([FAST, SLOW, FAST], pace=0.0) as running:
        yield running


@pytest.fixture(scope="module")
def server(phones: EmulatedPhones, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateAdbServer]:
    with AdbServer.start_private(home=tmp_path_factory.mktemp("adb")) as running:
        for address in phones.addresses:
            running.connect(address)
        yield running


@pytest.fixture(autouse=True)
def healed(phones: EmulatedPhones) -> Iterator[None]:
    yield
    for phone in phones:
        phone.heal()


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command prints; errors on stderr belong to the codes above 1."""
    assert main(["devices", *words]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return out + err


def test_a_list_tells_what_phones_are(
    capsys: pytest.CaptureFixture[str], phones: EmulatedPhones, server: AdbServer
) -> None:
    text = said(capsys, "list", "--server", str(server))
    assert text.count("EMULATED") == 3 and text.count(FAST) == 2 and "battery 85%" in text
    rows = json.loads(said(capsys, "list", "--server", str(server), "--json"))["devices"]
    assert {row["serial"]: row["facts"]["model"] for row in rows} == dict(
        zip(phones.addresses, [FAST, SLOW, FAST], strict=True)
    )
    assert all(row["facts"]["emulated"] and row["conditions"]["battery_level"] == 0.85 for row in rows)


def test_the_doctor_finds_a_mute_phone(
    capsys: pytest.CaptureFixture[str], phones: EmulatedPhones, server: AdbServer
) -> None:
    assert "3 of 3 phones can be used" in said(capsys, "doctor", "--server", str(server))
    phones[1].inject(PhoneFault.MUTE)
    text = said(capsys, "doctor", "--server", str(server), code=4)
    assert "2 of 3 phones can be used" in text
    assert f"!!  {phones.addresses[1]}: adb lists it as ready, but it does not answer\n      -> unplug it" in text


def test_the_doctor_of_one_phone_says_whether_it_may_measure(
    capsys: pytest.CaptureFixture[str], phones: EmulatedPhones, server: AdbServer
) -> None:
    one = phones[2]
    text = said(capsys, "doctor", one.address, "--server", str(server))
    assert "EMULATED" in text and text.rstrip().endswith("it can measure")
    one.set(battery_percent=7)
    text = said(capsys, "doctor", one.address, "--server", str(server), code=4)
    one.set(battery_percent=85)
    assert "the battery holds 7 %" in text and text.rstrip().endswith("it must rest")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["doctor", "nobody"], 2, "no adb server has a phone 'nobody'"),
        (["list", "--server", "nowhere"], 2, "--server: "),
        (["list", "--server", "127.0.0.1:1"], 4, "127.0.0.1:1"),
        (["list", "--config", "missing.yaml"], 2, "missing.yaml"),
        (["emulate", "0", "--adb", "5137"], 2, "N: expected a whole number in 1..256; got '0'"),
        (["emulate", "--adb", "80"], 2, "--adb: expected a whole number in 1024..65535"),
        (["emulate", "--adb", "5137", "--model", "pixel"], 2, "pixel"),
        (["emulate", "--adb", "5137", "--faults", "0:tired"], 2, "--faults: expected PHONE:FAULT, a phone in 0..0"),
        (["emulate", "--adb", "5137", "--clock", "sun"], 2, "--clock: expected model or host"),
        (["emulate", "--adb", "5137", "--pace", "nan"], 2, "--pace: expected a number in 0..100; got 'nan'"),
        (["emulate", "--pace", "-1"], 2, "--pace: expected a number in 0..100; got '-1'"),
        (["history", "p", "--lines", "many"], 2, "--lines: expected a whole number"),
        (["quarantine", "p", "--address", "local"], 2, "--address: a cluster of this command's own"),
        (["release", "p", "--address", "127.0.0.1:1"], 4, "nobody answers at 127.0.0.1:1"),
    ],
)
def test_bad_input(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    server: AdbServer,
    words: list[str],
    code: int,
    expected: str,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # Ray may have been imported by another test of this process
    if words[0] == "doctor":
        words = [*words, "--server", str(server)]
    text = said(capsys, *words, code=code)
    assert expected in text and len(text.splitlines()) == 1


def test_a_command_runs_beside_emulated_phones_which_end_with_it(tmp_path: Path) -> None:
    script = (
        "import os, sys; from npas_ray.cli import main; main(['devices', 'list']);"
        "print('port', os.environ['ANDROID_ADB_SERVER_PORT']); sys.exit(7)"
    )
    npas = [sys.executable, "-m", "npas_ray", "devices", "emulate", "2", "--model", FAST, "--model", SLOW]
    done = subprocess.run([*npas, "--run", sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    assert done.stdout.count("EMULATED") == 2
    port = done.stdout.rpartition("port ")[2].strip()
    with pytest.raises(InfrastructureError):
        phone_count(_search(f"127.0.0.1:{port}", FAST))


def test_a_killed_emulator_takes_its_adb_server_with_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "npas_ray", "devices", "emulate", "1", "--pace", "0", "--adb", str(port)]
    emulator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert emulator.stdout is not None
    with emulator.stdout as output:
        assert any("Ctrl-C ends them" in line for line in output)
        emulator.terminate()
        assert emulator.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def _search(server: str, *models: str) -> SearchConfig:
    devices = [{"kind": "adb", "model": model, "server": server} for model in models]
    return SearchConfig.from_json({"name": "t", "devices": [{"kind": "local"}, *devices]})


def test_what_phones_are_compiled_for_is_asked_of_them(phones: EmulatedPhones, server: AdbServer) -> None:
    search = settled(_search(str(server), FAST, SLOW))
    local, fast, slow = search.devices
    assert isinstance(local, LocalDevice)
    assert isinstance(fast, AdbDevice) and fast.target == "x86_64-avx512"
    assert isinstance(slow, AdbDevice) and slow.target == "x86_64-avx2"
    assert settled(search) is search
    assert phone_count(search) == 3


def test_phones_that_are_not_there_are_said_so(phones: EmulatedPhones, server: AdbServer) -> None:
    with pytest.raises(InfrastructureError, match=r"no phone 'Pixel 6' answers at .*: it lists none\. `npas devices"):
        settled(_search(str(server), "Pixel 6"))
    phones[1].inject(PhoneFault.REFUSE)
    with pytest.raises(InfrastructureError, match=r"no phone 'emu-x86-slow' answers"):
        settled(_search(str(server), SLOW))


def test_adb_folds_the_names_of_models() -> None:
    assert is_wanted(AdbDevice(model="Pixel 6 (lab)"), serial="a", model="Pixel_6__lab_")
    assert not is_wanted(AdbDevice(model="Pixel 6"), serial="a", model="Pixel_6a")
    named = AdbDevice(model="any name", serials=("a", "b"))
    assert is_wanted(named, serial="b", model="Pixel_6") and not is_wanted(named, serial="c", model="any_name")


def test_what_happened_to_the_phones_of_a_run(capsys: pytest.CaptureFixture[str], make_run: Callable[[], Path]) -> None:
    run = make_run()
    assert "had no phones of its own: it has no farm.sqlite" in said(capsys, "history", "p", "--run", str(run), code=2)
    with contextlib.closing(Journal.open(RunDirectory(run).farm_journal)) as journal:
        journal.append(
            [
                Entry(Kind.JOINED, serial="p\n1", data={"model": "Pixel 6"}),
                Entry(Kind.STRUCK, serial="p\n1", data={"reason": "DeviceGone: \x1b[2J"}),
            ]
        )
    lines = said(capsys, "history", "p\n1", "--run", str(run)).splitlines()
    assert [line.split()[2] for line in lines] == ["joined", "struck"]
    assert lines[1].endswith(r"DeviceGone: \x1b[2J")
    told = json.loads(said(capsys, "history", "p\n1", "--run", str(run), "--json", "--lines", "1"))
    assert [entry["kind"] for entry in told["history"]] == ["struck"]
    assert "nothing of q" in said(capsys, "history", "q", "--run", str(run))
