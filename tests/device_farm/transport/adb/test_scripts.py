"""The texts for a phone's shell, run by the shells of this machine: /bin/sh, and Android's own (mksh) where it is."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from device_farm.transport.adb import scripts
from device_farm.transport.adb.conditions import parse_frequencies
from device_farm.transport.adb.quoting import quote

_DAY_S = 86_400
_SHELLS = ["/bin/sh", *(path for name in ("mksh", "bash") if (path := shutil.which(name)))]


@pytest.fixture(params=_SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _sh(script: str, shell: str = "/bin/sh") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([shell, "-c", script], capture_output=True, timeout=20)


def test_preparing_sweeps_what_was_left_two_days_ago_and_halves_of_its_own(tmp_path: Path) -> None:
    base = tmp_path / "npas"
    for name, age_days in (("old", 3), ("young", 1), ("mine", 9)):
        (base / name).mkdir(parents=True)
        (base / name / "file").write_bytes(b"x")
        os.utime(base / name, (time.time() - age_days * _DAY_S,) * 2)
    (base / "mine" / ".file.0a.partial").write_bytes(b"half")
    os.utime(base / "mine")
    done = _sh(scripts.prepare(str(base), str(base / "mine"), "mark"))
    assert sorted(path.name for path in base.iterdir()) == ["mine", "young"]
    assert [path.name for path in (base / "mine").iterdir()] == ["file"]
    parts = scripts.parts(done.stdout, "mark")
    assert set(parts) == {"properties", "cpuinfo", "allowed", "clusters", "end"}
    assert "processor" in parts["cpuinfo"] and re.search(r"online \d", parts["clusters"])


def test_closing_deletes_the_folder_and_with_the_last_of_them_the_one_around(tmp_path: Path) -> None:
    base = tmp_path / "npas"
    for name in ("one", "two"):
        (base / name).mkdir(parents=True)
    _sh(scripts.close(str(base), str(base / "one")))
    assert [path.name for path in base.iterdir()] == ["two"]
    _sh(scripts.close(str(base), str(base / "two")))
    assert not base.exists()


def test_conditions_are_told_in_parts_even_where_there_is_no_android(shell: str) -> None:
    parts = scripts.parts(_sh(scripts.conditions("mark"), shell).stdout, "mark")
    assert set(parts) == {"values", "battery", "thermal", "power", "end"}
    assert "/proc/loadavg " in parts["values"]
    assert all(khz > 0 for khz in parse_frequencies(parts["values"]).values())


def test_a_phone_cannot_forge_a_part() -> None:
    output = b"other values\nx\nmark battery\nlevel: 5\nmark2 end\nmark end\n"
    assert scripts.parts(output, "mark") == {"battery": "level: 5\nmark2 end", "end": ""}
    with pytest.raises(ValueError, match="answer of 20 bytes is not complete"):
        scripts.parts(b"mark battery\nlevel: ", "mark")


def _program(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "program"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_a_run_hands_status_input_and_output_through(tmp_path: Path, shell: str) -> None:
    _program(tmp_path, 'read line; echo "$line $1 $NPAS_RUN"; echo error >&2; exit 42')
    script = scripts.run(str(tmp_path), ["program", "a  'b'"], "npas-token")
    done = subprocess.run([shell, "-c", script], input=b"hello\n", capture_output=True, timeout=20)
    head, _, output = done.stdout.partition(b"\n")
    assert re.fullmatch(rb"run \d+", head)
    assert (output, done.stderr, done.returncode) == (b"hello a  'b' npas-token\n", b"error\n", 42)


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0o755, "no such program"),
        (b"not a program", 0o755, "neither with ELF nor with #!"),
        (b"", 0o755, "neither with ELF nor with #!"),
        (b"\x7fELF", 0o644, "not executable"),
    ],
)
def test_what_cannot_be_run_is_told_before_it_is_tried(
    tmp_path: Path, shell: str, content: bytes | None, mode: int, why: str
) -> None:
    if content is not None:
        (tmp_path / "program").write_bytes(content)
        (tmp_path / "program").chmod(mode)
    problem = scripts.problem(_sh(scripts.run(str(tmp_path), ["program"], "npas-token"), shell).stdout)
    if why == "not executable" and os.access(tmp_path / "program", os.X_OK):
        pytest.skip("root may execute anything here")
    assert problem is not None and why in problem


def _alive(token: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if token.encode() in path.read_bytes():
                found.append(int(path.parts[2]))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["hang up", "end_run", "end_run without the shell's number"])
def test_nothing_survives_a_run_that_is_ended(tmp_path: Path, shell: str, how: str) -> None:
    """Neither a program that ignores signals nor its children; as adbd ends it, and as a second call ends it."""
    token = f"npas-test-{secrets.token_hex(8)}"
    _program(tmp_path, "trap '' HUP TERM\n(trap '' HUP TERM; sleep 60) &\nsleep 60\nsleep 60")
    script = scripts.run(str(tmp_path), ["program"], token)
    pipe = subprocess.PIPE
    running = subprocess.Popen([shell, "-c", script], stdin=pipe, stdout=pipe, start_new_session=True)
    assert running.stdin is not None and running.stdout is not None
    with running.stdin, running.stdout:
        number = int(running.stdout.readline().split()[1])
        end = time.monotonic() + 5
        while len(_alive(token)) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        if how == "hang up":
            running.send_signal(signal.SIGHUP)
        else:
            done = _sh(scripts.end_run(token, number if how == "end_run" else None), shell)
            assert done.stdout == b"ended\n"
            assert _alive(token) == []
        running.wait(5)
        assert _gone(token)


def test_ending_a_run_spares_who_has_got_its_shells_number(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        assert _sh(scripts.end_run("npas-test-none", stranger.pid)).stdout == b"ended\n"
        assert stranger.poll() is None
        stranger.kill()


def _gone(token: str, *, within_s: float = 5.0) -> bool:
    """The kernel takes its time with those that are killed."""
    end = time.monotonic() + within_s
    while _alive(token) and time.monotonic() < end:
        time.sleep(0.01)
    return not _alive(token)


def _watchers(token: str) -> list[int]:
    """Of this run: they carry the token only as a pattern."""
    pattern = f"{token[:-1]}[{token[-1]}]".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sh", b"-c"] and pattern in words[2]:
            found.append(int(path.parts[2]))
    return found


@pytest.mark.parametrize("shell_dies", [False, True], ids=["the shell waits", "the shell is killed"])
def test_what_nobody_ends_is_ended_by_the_phone_itself(tmp_path: Path, shell: str, shell_dies: bool) -> None:
    """A program that is stopped, with a child in a session of its own; no signal and no second call ever come."""
    token = f"npas-test-{secrets.token_hex(8)}"
    _program(tmp_path, "setsid sleep 60 &\nkill -STOP $$\nsleep 60")
    script = scripts.run(str(tmp_path), ["program"], token, most_s=4)
    with subprocess.Popen(
        [shell, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(b"run ")
        began = time.monotonic()
        while len(_alive(token)) < 2:
            assert time.monotonic() - began < 3.5
            time.sleep(0.01)
        if shell_dies:
            running.kill()
        assert time.monotonic() - began < 4
        assert _gone(token)
        assert time.monotonic() - began >= 3.5
        running.wait(5)
    end = time.monotonic() + 5
    while _watchers(token):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_that_ends_in_time_takes_its_watcher_with_it(tmp_path: Path, shell: str) -> None:
    token = f"npas-test-{secrets.token_hex(8)}"
    _program(tmp_path, "read line; exit 7")
    script = scripts.run(str(tmp_path), ["program"], token, most_s=60, then="echo then\n")
    with subprocess.Popen([shell, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stdout is not None
        assert running.stdout.readline().startswith(b"run ")
        end = time.monotonic() + 5
        while len(_watchers(token)) != 1:
            assert time.monotonic() < end
            time.sleep(0.01)
        (watcher,) = _watchers(token)
        assert os.getsid(watcher) == watcher, "what ends the shell's session must not end it"
        running.stdin.close()
        assert running.stdout.read() == b"then\n"  # nobody else holds the output
        assert running.wait(5) == 7
    end = time.monotonic() + 5
    while Path("/proc", str(watcher)).exists() or _sleepers_of(watcher):
        assert time.monotonic() < end
        time.sleep(0.01)


def _sleepers_of(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == session:
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("lacks", ["sleep", "its watcher"])
def test_a_phone_that_cannot_watch_goes_without(tmp_path: Path, shell: str, lacks: str) -> None:
    """A watcher that cannot sleep must not take that for the end of its time; one that was killed kills nobody."""
    token = f"npas-test-{secrets.token_hex(8)}"
    _program(tmp_path, "read line; echo done; exit 7")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "setsid", "grep", "kill"):
        (tools / name).symlink_to(str(shutil.which(name)))
    script = scripts.run(str(tmp_path), ["program"], token, most_s=60)
    if lacks == "sleep":
        command = f"(/bin/sleep 0.5; echo) | {shell} -c {quote(script)}"
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=20, env={"PATH": str(tools)})
        assert (done.stdout.split(b"\n", 1)[1], done.returncode) == (b"done\n", 7)
        return
    with subprocess.Popen([shell, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stdout is not None
        while not (watchers := _watchers(token)):
            time.sleep(0.01)
        os.kill(watchers[0], signal.SIGKILL)
        time.sleep(0.2)
        running.stdin.close()
        assert running.stdout.read().endswith(b"done\n")
        assert running.wait(5) == 7
