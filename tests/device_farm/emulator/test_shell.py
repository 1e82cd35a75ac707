"""The shell of a phone says what a real one says: the host's own is asked, too, where it can be."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_farm.emulator.shell.arithmetic import calculate
from device_farm.emulator.shell.parser import parse
from device_farm.emulator.shell.tree import SyntaxProblem
from device_farm.testing.adb import Adb
from device_farm.testing.phones import EmulatedPhones

WORK = "/data/local/tmp/shell"

SCRIPTS = [
    "echo a  b   'c  d' \"e  f\" g\\ h",
    'A=1; B="$A 2"; echo $B "$B" \'$B\' ${B}x ${C:-none} ${C-none} ${A:+set} ${#B}',
    "P=/a/b/c.txt; echo ${P##*/} ${P%/*} ${P#*/} ${P%%.*} ${P#x}",
    "echo $((1 + 2 * 3)) $((7 / 2)) $((-7 / 2)) $((-7 % 3)) $((2 > 1)); i=4; i=$((i + 1)); echo $i",
    "true && echo yes || echo no; false && echo yes || echo no; ! false; echo $?",
    "if false; then echo a; elif true; then echo b; else echo c; fi",
    "for i in 1 2 3; do if [ $i = 2 ]; then continue; fi; echo $i; done",
    "i=0; while [ $i -lt 3 ]; do i=$((i + 1)); echo $i; done; until [ $i -le 1 ]; do i=$((i - 1)); done; echo $i",
    "for i in 1 2 3; do echo $i; break; done",
    "echo one two three | { read a b; echo $b; }",
    "printf '%s-%5d|%x%%\\n' a 42 255; printf '%s\\n' a b c",
    "echo a; echo b >&2; (exit 3); echo $?; { echo c; false; }; echo $?",
    "X=out; (X=in; echo $X); echo $X",
    'echo $(echo a; echo b) "$(echo a; echo b)" `echo c`',
    'f=\'a b\'; set -- "$f" c; echo $# "$1" "$@"; shift; echo $*',
    "echo a | cat | cat; echo ab | wc -c",
    "echo text > file; echo more >> file; cat < file; cat file 2>&1; rm file; [ -e file ] || echo gone",
    "nothing-like-that 2> /dev/null; echo $?",
    "(exit 5) & wait $!; echo $?",
    "sleep 0.01 & p=$!; wait $p; echo $?; kill -0 $p 2>/dev/null || echo ended",
    "trap 'echo bye' EXIT; echo hello; exit 4",
    "set -e; false || true; echo on; false; echo not reached",
    "exec 3>&1; echo to three >&3",
    "exec echo instead; echo not reached",
    "echo 'a*b' a\\*b *.none; touch x1 x2 y1; echo x* [xy]1 ?2; rm x1 x2 y1",
    "echo ' x ' > l; IFS= read -r line < l; echo \"[$line]\"; rm l",
    "printf 'one\\ntwo\\nthree\\n' | grep -c t; printf 'one\\ntwo\\n' | grep -v one; echo abc | grep -q b && echo yes",
    "printf '1\\n2\\n3\\n' | head -n 2; printf '1\\n2\\n3\\n' | tail -n 1",
    "mkdir -p d/e; echo x > d/e/f; cp d/e/f d/g; mv d/g d/h; ls d; cat d/h; rm -r d; ls d 2>/dev/null || echo none",
    "# a comment\necho after # another\necho '# none'",
    "echo a \\\n  b",
    'if [ -n "" ] || [ -z "" -a 3 -gt 2 ]; then echo t; fi; test abc = abc; echo $?; [ 1 -eq 2 ]; echo $?',
    "timeout 0.05 sleep 5; echo $?; timeout 5 true; echo $?",
    "sh -c 'echo $0 $1 $#' name arg; echo 'echo from stdin' | sh",
    "A=x sh -c 'echo $A'; echo [$A]; export B=y; sh -c 'echo $B'",
    "command -v cd; cd /; pwd",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_say_the_same_as_in_the_hosts_shell(
    adb: Adb, shared: EmulatedPhones, tmp_path: Path, script: str
) -> None:
    expected = subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL)
    serial = shared.addresses[0]
    got = adb.shell(serial, f"mkdir -p {WORK}; cd {WORK}\n{script}")
    assert (got.stdout.decode(), got.returncode) == (expected.stdout.decode(), expected.returncode)


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("echo (", 1, "syntax error"),
        ("if true; then", 1, "expected 'fi'"),
        ("echo 'open", 1, "no closing quote"),
        ("cat <<E\nE", 1, "here-documents are not emulated"),
        ("cat /nothing", 1, "cat: /nothing: No such file or directory"),
        ("cd /nothing", 2, "No such file or directory"),
        ("rm /proc/cpuinfo", 1, "Read-only file system"),
        ("echo x > /system/x", 1, "Read-only file system"),
        ("grep '(a*)*b' /proc/cpuinfo", 1, "groups and many repetitions are not emulated"),
        ("ls -Z", 1, "Unknown option Z"),
        ("find . -newer x", 1, "bad option '-newer'"),
        ("kill 99999", 1, "No such process"),
        ("echo $((1 / 0))", 1, "bad arithmetic"),
        ("kill -9 $$", 137, ""),
        ("trap 'echo in vain' EXIT; kill -9 $$", 137, ""),
        ("trap 'echo caught >&2; exit 7' TERM; kill $$; sleep 5", 7, "caught"),
    ],
)
def test_what_goes_wrong(adb: Adb, shared: EmulatedPhones, script: str, status: int, said: str) -> None:
    done = adb.shell(shared.addresses[0], script)
    assert done.returncode == status and said in done.stderr.decode()
    assert b"in vain" not in done.stdout


def test_what_the_system_tells(adb: Adb, shared: EmulatedPhones) -> None:
    x86, arm = shared.addresses
    assert "AArch64" not in adb.text(x86, "cat /proc/cpuinfo") and "flags" in adb.text(x86, "cat /proc/cpuinfo")
    assert "CPU part\t: 0xd41" in adb.text(arm, "cat /proc/cpuinfo")
    assert " asimddp" in adb.text(arm, "grep Features /proc/cpuinfo")
    assert adb.text(x86, "uname -m; uname -s") == "x86_64\nLinux\n" and adb.text(arm, "uname -m") == "aarch64\n"
    assert adb.text(arm, "cat /sys/devices/system/cpu/cpu7/cpufreq/cpuinfo_max_freq") == "2600000\n"
    assert adb.text(arm, "cat /sys/devices/system/cpu/online /sys/devices/system/cpu/cpu0/cpufreq/related_cpus") == (
        "0-7\n0 1 2 3 4 5\n"
    )
    assert adb.text(arm, "ls /sys/class/thermal").split() == [f"thermal_zone{i}" for i in range(4)]
    assert 20_000 < int(adb.text(arm, "cat /sys/class/thermal/thermal_zone1/temp")) < 45_000
    assert "uid=2000(shell)" in adb.text(arm, "id")
    assert "MemTotal:" in adb.text(arm, "cat /proc/meminfo")
    assert "/data" in adb.text(arm, "df /data/local/tmp")


def test_conditions_can_be_set(adb: Adb, phone: EmulatedPhones) -> None:
    serial = phone.addresses[0]
    phone[0].set(battery_percent=7, charging=False, screen_on=True, heat_c=51.0)
    battery = adb.text(serial, "dumpsys battery")
    assert "level: 7\n" in battery and "status: 3\n" in battery and "USB powered: false" in battery
    assert "mWakefulness=Awake" in adb.text(serial, "dumpsys power")
    assert "state=ON" in adb.text(serial, "dumpsys power")
    assert "Thermal Status: 2" in adb.text(serial, "dumpsys thermalservice")
    assert int(adb.text(serial, "cat /sys/class/power_supply/battery/temp")) > 300
    phone[0].set(battery_percent=90, charging=True, screen_on=False)
    assert "Asleep" in adb.text(serial, "dumpsys power")
    assert "Can't find service" in adb.text(serial, "dumpsys activity")


@given(text=st.text(alphabet="ab $(){}[]|&;<>'\"`\\\n#=!*?-/0129", max_size=40))
def test_any_text_is_a_script_or_a_syntax_error(text: str) -> None:
    with contextlib.suppress(SyntaxProblem):
        parse(text)


@given(text=st.text(alphabet="0123456789 +-*/%()<>=!&|", max_size=20))
def test_any_calculation_is_a_number_or_an_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert -(2**63) <= calculate(text) < 2**63
