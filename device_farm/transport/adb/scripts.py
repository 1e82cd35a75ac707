"""Every text that a phone's shell is given. Arguments come in quoted; the rest is constant.

Android's shell is mksh with toybox, since Android 6; what is used here runs in any POSIX shell, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_farm.transport.adb.quoting import quote, quote_all

TOKEN_VARIABLE = "NPAS_RUN"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_PROBLEMS = {  # first word on stdout of a run that did not start
    "no-file": "there is no such program on the phone",
    "no-program": "it is no program: it begins neither with ELF nor with #!",
    "no-right": "it is not executable",
}


def run(folder: str, argv: Sequence[str], token: str, *, most_s: int | None = None, then: str = "") -> str:
    """Runs a program of the folder in a group of its own, which nobody survives; `token` marks all its processes.

    First the shell prints "run PID" in a line of its own, or a word of `problem`. The program's input comes through a
    third descriptor, as a shell gives its background programs none. When the link is lost, adbd sends SIGHUP. `then` is
    a script that goes on when the program has ended. After `most_s` seconds nothing of all that is left, whoever is
    still there to see it.
    """
    name = quote(argv[0])
    begin_watch, end_watch = ("", "") if most_s is None else (_watch(token, most_s), _END_WATCH)
    return (
        f"cd {folder} 2>/dev/null && [ -f ./{name} ] || {{ echo no-file; exit 127; }}\n"
        f"[ -x ./{name} ] || {{ echo no-right; exit 126; }}\n"
        f"IFS= read -r m <./{name}\n"
        'if [ "${m#?ELF}" = "$m" ] && [ "${m#\\#!}" = "$m" ]; then echo no-program; exit 126; fi\n'
        "echo run $$\n"
        "trap 'kill -9 $! 2>/dev/null; kill -9 -$! 2>/dev/null; exit 129' HUP TERM\n"
        f"{begin_watch}"
        "exec 3<&0\n"
        f"{TOKEN_VARIABLE}={token} setsid ./{name} {quote_all(argv[1:])} <&3 &\n"
        "wait $! 2>/dev/null\n"
        "s=$?\n"
        "kill -9 -$! 2>/dev/null\n"
        f"{then}{end_watch}exit $s\n"
    )


# By its number, too: it may have had no time yet to become the first of a group.
_END_WATCH = "kill $w 2>/dev/null; kill -15 -$w 2>/dev/null\n"


def _watch(token: str, most_s: int) -> str:
    """Begins a sleeper of its own session, number in `w`, that in the end kills (-9) whatever carries the token.

    It outlives the shell, so a lost link does not matter, and a program that is stopped cannot escape. Once it kills,
    the shell, which sees its program end, does not stop it half-way. A phone without `sleep` goes without.
    """
    text = f"sleep {most_s} && trap '' HUP TERM && {{ {_end_marked(token)} }}"
    return f"setsid sh -c {quote(text)} </dev/null >/dev/null 2>&1 &\nw=$!\n"


def _end_marked(token: str) -> str:
    """Kills who carries the token in the environment or the command line, until nobody does; `n` is 0 then.

    The pattern differs from the token, or the search would find itself.
    """
    pattern = quote(f"{token[:-1]}[{token[-1]}]")
    marked = f"$(grep -l {pattern} /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null)"
    kill = f"n=0; for f in {marked}; do p=${{f#/proc/}}; kill -9 ${{p%%/*}} 2>/dev/null && n=1; done"
    return f"i=0\nwhile {kill}; [ $n = 1 ] && [ $i -lt 25 ]; do sleep 0.02; i=$((i + 1)); done\n"


def problem(stdout: bytes) -> str | None:
    """Why a program did not start, None if it did."""
    return _PROBLEMS.get(stdout.strip().decode(errors="replace"))


def end_run(token: str, shell_pid: int | None) -> str:
    """Ends a run and waits until nothing of it is left; prints "ended" then, or "alive" after a second.

    Its shell (if its number is still its own) is told as adbd does it; then whoever carries the token is killed.
    """
    end_shell = ""
    if shell_pid is not None:
        pattern = quote(f"{token[:-1]}[{token[-1]}]")
        end_shell = (
            f"s={shell_pid}\n"
            f"if [ -r /proc/$s/cmdline ]; then grep -q {pattern} /proc/$s/cmdline 2>/dev/null || s=; fi\n"
            'if [ -n "$s" ]; then\n'
            "kill -HUP $s 2>/dev/null; i=0\n"
            "while kill -0 $s 2>/dev/null && [ $i -lt 25 ]; do sleep 0.02; i=$((i + 1)); done\n"
            "kill -9 $s 2>/dev/null\n"
            "fi\n"
        )
    return f"{end_shell}{_end_marked(token)}if [ $n = 0 ]; then echo ended; else echo alive; fi\n"


def push_done(folder: str, partial: str, name: str) -> str:
    """Gives a file that is complete its name. May be done again."""
    return f"[ ! -f {folder}/{partial} ] || mv -f {folder}/{partial} {folder}/{name}"


def remove(folder: str, name: str) -> str:
    """Deletes a file; none is fine."""
    return f"rm -f {folder}/{name}"


def conditions_after(marker: str) -> str:
    """`conditions` behind what a program printed; in a line of its own, which `split_conditions` takes away again."""
    return f"echo\n{conditions(marker)}"


def split_conditions(output: bytes, marker: str) -> tuple[bytes, bytes]:
    """What the program printed, and what `conditions_after` did. Raises ValueError if that is missing."""
    at = output.rfind(f"\n{marker} values".encode())
    if at < 0:
        raise ValueError(f"the phone's answer of {len(output)} bytes is not complete")
    return output[:at], output[at + 1 :]


def close(base: str, folder: str) -> str:
    """Deletes a client's folder, and with the last of them the one around."""
    return f"rm -rf {folder}; rmdir {base} 2>/dev/null"


def prepare(base: str, folder: str, marker: str) -> str:
    """Makes the client's folder, sweeps what clients left more than two days ago, and tells what the phone is.

    Parts are told apart by lines that begin with the marker, which no property of a phone can know.
    """
    return (
        f"find {base} -mindepth 1 -maxdepth 1 -type d -mtime +1 -exec rm -rf {{}} + 2>/dev/null\n"
        f"mkdir -p {folder} && chmod 700 {folder} && rm -f {folder}/.*.partial || exit 1\n"
        f"touch {folder} 2>/dev/null\n"
        f"echo {marker} properties; getprop\n"
        f"echo {marker} cpuinfo; cat /proc/cpuinfo\n"
        f"echo {marker} allowed; grep Cpus_allowed_list /proc/self/status 2>/dev/null\n"
        f"echo {marker} clusters\n"
        + _values(
            "/sys/devices/system/cpu/online",
            "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
            "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/related_cpus",
            BOOT_ID,
        )
        + f"echo {marker} end\n"
    )


def conditions(marker: str) -> str:
    """Clocks, temperatures, load, battery and screen, in one call. What a phone forbids is left out."""
    return (
        f"echo {marker} values\n"
        + _values(
            "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
            "/sys/class/thermal/thermal_zone[0-9]*/type",
            "/sys/class/thermal/thermal_zone[0-9]*/temp",
            "/proc/loadavg",
        )
        + f"echo {marker} battery; dumpsys battery 2>/dev/null\n"
        f"echo {marker} thermal; dumpsys thermalservice 2>/dev/null\n"
        f"echo {marker} power; dumpsys power 2>/dev/null | grep -E 'mWakefulness=|Display Power: state='\n"
        f"echo {marker} end\n"
    )


def probe(word: str) -> str:
    """A phone that lives says the word."""
    return f"echo {word}"


def parts(output: bytes, marker: str) -> dict[str, str]:
    """What stands between the marker's lines, by their names. Raises ValueError if the end is missing."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.decode(errors="replace").split("\n"):
        word, _, name = line.rstrip("\r").partition(" ")
        if word == marker:
            current = found.setdefault(name, [])
        else:
            current.append(line.rstrip("\r"))
    if "end" not in found:
        raise ValueError(f"the phone's answer of {len(output)} bytes is not complete")
    return {name: "\n".join(lines) for name, lines in found.items()}


def _values(*patterns: str) -> str:
    """First lines of small files, each as "PATH VALUE": by the shell alone, as processes cost a phone time."""
    return (
        f'for f in {" ".join(patterns)}; do\nv=; IFS= read -r v 2>/dev/null <"$f" && echo "$f $v"\ndone 2>/dev/null\n'
    )
