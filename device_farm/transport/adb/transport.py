"""A phone behind an adb server as a device."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from device_farm.compiler.target import Precision
from device_farm.errors import DeviceGone, Refused, TransportError
from device_farm.measurement.types import DeviceConditions, DeviceFacts
from device_farm.transport.adb import scripts
from device_farm.transport.adb.conditions import make_conditions
from device_farm.transport.adb.facts import make_facts, parse_boot_id
from device_farm.transport.adb.link import PhoneLink
from device_farm.transport.adb.properties import clean
from device_farm.transport.adb.quoting import check_folder, check_serial
from device_farm.transport.adb.server import AdbServer
from device_farm.transport.adb.shell import ShellSession
from device_farm.transport.adb.smart_socket import OtherLink
from device_farm.transport.adb.sync import is_folder, quit_sync, receive_file, send_file
from device_farm.transport.base import MAX_OUTPUT_BYTES, Completed, Deadline, Transport, check_name

DEFAULT_FOLDER = "/data/local/tmp/npas"
_KILL_S = 1.5  # beyond the deadline of a run, to end it and to see that it is ended
_WATCH_S = 2.0  # beyond the deadline of a run, after which the phone itself ends what is left of it
_CLOSE_S = 2.0
_BUSY_S = 0.005
_MOST_UNENDED = 20
_MOST_CHORES = 20
_MOST_LINKS = 3  # that may come and go while one call is tried
_HEADER = re.compile(rb"run ([0-9]{1,10})\n")
_HEADER_BYTES = 32
_LOOK_BYTES = 1 << 18  # that conditions may take behind a program's output
_T = TypeVar("_T")
_NO_START = re.compile(rb"[Ee]xec|not executable|[Pp]ermission denied|not found|No such file|[Bb]usy|[Ss]yntax")


class AdbTransport(Transport):
    """One phone of an adb server; `serial` is what adb lists. Makes no connection before its first call.

    Its files are in a folder of its own, `work_dir`/`client`, which `close` deletes; transports with other clients on
    the same phone do not meet. A client that comes again under its name finds its files again. `cpu` is the core that
    measurements are pinned to, the first of the fastest cluster if None.

    A phone that is reached by TCP is connected again where the server has forgotten it, and a server on this machine
    is started again where it is gone: a call finds out, does that and tries once more, if nothing was begun yet.

    Example:
        >>> with contextlib.closing(AdbTransport(AdbServer(), "R5CT10ABCDE")) as phone:
        ...     measure(phone, artifact).latency_ms

    Raises ValueError for what cannot be a serial or a folder.
    """

    def __init__(
        self,
        server: AdbServer,
        serial: str,
        *,
        work_dir: str = DEFAULT_FOLDER,
        client: str | None = None,
        model: str | None = None,
        cpu: int | None = None,
        threads: int = 1,
        precision: Precision = Precision.FP32,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self._serial = check_serial(serial)
        self._base = check_folder(work_dir)
        self._client = check_name(client or secrets.token_hex(8))
        self._folder = f"{self._base}/{self._client}"
        self._model, self._cpu, self._threads, self._precision = model, cpu, threads, precision
        self._link = PhoneLink(server, serial)
        self._lock = threading.Lock()
        self._facts: DeviceFacts | None = None
        self._identity = ""
        self._boot_id = ""
        self._fresh = False  # whether the facts are those of the phone that answered last
        self._unended: dict[str, int | None] = {}  # runs that may still be there: token and number of the shell
        self._chores: dict[int, str] = {}  # what goes with the next script, in this order: it costs no call of its own
        self._numbers = itertools.count()
        self._present: set[str] = set()  # files that are there if the link was not lost
        self._touched = False  # whether there may be something of ours on the phone
        self._closed = False

    def facts(self, *, timeout_s: float = 10.0) -> DeviceFacts:
        return self._ready(self._begin("facts", timeout_s))

    def conditions(self, *, timeout_s: float = 10.0) -> DeviceConditions:
        deadline = self._begin("conditions", timeout_s)
        return make_conditions(self._with_phone(deadline, lambda: self._tell(scripts.conditions, deadline)[0]))

    def push(self, local: Path, remote_name: str, *, timeout_s: float = 30.0) -> None:
        name = check_name(remote_name)
        deadline = self._begin(f"push of {name}", timeout_s)
        with local.open("rb") as source:
            self._with_phone(deadline, lambda: self._push(source, name, deadline))

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Completed:
        name = check_name(argv[0])
        scripts.run(self._folder, argv, "")  # an argument that cannot be: before anything else
        deadline = self._begin(f"run of {name}", timeout_s)
        return self._started(
            name, deadline, lambda: self._run(argv, stdin=stdin, deadline=deadline, max_output_bytes=max_output_bytes)
        )

    def run_and_look(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> tuple[Completed, DeviceConditions]:
        name = check_name(argv[0])
        scripts.run(self._folder, argv, "")
        deadline = self._begin(f"run of {name}", timeout_s)
        marker = f"npas-{secrets.token_hex(8)}"
        seen: dict[str, str] = {}

        def once() -> Completed:
            completed = self._run(
                argv,
                stdin=None,
                deadline=deadline,
                max_output_bytes=max_output_bytes + _LOOK_BYTES,
                then=scripts.conditions_after(marker),
            )
            try:
                stdout, told = scripts.split_conditions(completed.stdout, marker)
                seen.update(scripts.parts(told, marker))
            except ValueError as error:
                raise Refused(f"{deadline.what}: {error}: {_said(completed)}") from None
            if len(stdout) + len(completed.stderr) > max_output_bytes:
                raise Refused(f"{deadline.what}: printed more than {max_output_bytes} bytes and was ended")
            return Completed(completed.exit_status, stdout, completed.stderr)

        return self._started(name, deadline, once), make_conditions(seen)

    def holds(self, remote_name: str) -> bool | None:
        return remote_name in self._present

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def is_linked(self, *, timeout_s: float = 2.0) -> bool:
        """As the adb server lists it; a mute phone is linked."""
        return not self._closed and self._link.is_ready(Deadline(timeout_s, f"look at {self._serial!r}"))

    def _started(self, name: str, deadline: Deadline, once: Callable[[], Completed]) -> Completed:
        """A run of a program that the phone could start. Raises Refused."""
        while True:
            completed = self._with_phone(deadline, once)
            cannot_start = completed.exit_status in (126, 127) and _cannot_start(completed.stderr, name)
            if not cannot_start:
                return completed
            # A fork of adbd's may hold a freshly pushed program open for an instant.
            if b"busy" not in completed.stderr:
                raise Refused(f"{deadline.what}: it cannot be started: {_said(completed)}")
            time.sleep(_BUSY_S)

    def pull(self, remote_name: str, *, timeout_s: float = 30.0) -> bytes:
        name = check_name(remote_name)
        deadline = self._begin(f"pull of {name}", timeout_s)
        return self._with_phone(deadline, lambda: self._pull(name, deadline))

    def remove(self, remote_name: str, *, timeout_s: float = 10.0) -> None:
        name = check_name(remote_name)
        self._begin(f"removal of {name}", timeout_s)
        self._present.discard(name)
        self._add_chore(scripts.remove(self._folder, name))
        if len(self._chores) > _MOST_CHORES:
            deadline = self._begin(f"removal of {name}", timeout_s)
            self._with_phone(deadline, lambda: self._do_chores(deadline))

    def close(self) -> None:
        with self._lock:
            was_closed, self._closed = self._closed, True
        if was_closed or not self._touched:
            return
        with contextlib.suppress(TransportError):
            deadline = Deadline(_CLOSE_S, f"tidying up on {self._serial!r}")
            for token, shell_pid in list(self._unended.items()):
                self._end(token, shell_pid, deadline)
            self._link.shell(scripts.close(self._base, self._folder), deadline, any_link=True)

    def _begin(self, what: str, timeout_s: float) -> Deadline:
        if self._closed:
            raise DeviceGone(f"{what}: the transport to {self._serial!r} is closed")
        return Deadline(timeout_s, f"{what} on {self._serial!r}")

    def _with_phone(self, deadline: Deadline, call: Callable[[], _T]) -> _T:
        """The call, with the phone that the facts are of: after every loss of its link it is looked at anew."""
        for _ in range(_MOST_LINKS):
            self._ready(deadline)
            try:
                return call()
            except OtherLink:
                self._fresh = False
            except DeviceGone:
                self._fresh = False
                raise
        raise DeviceGone(
            f"{deadline.what}: its link breaks again and again: try another cable, another port of the hub"
        )

    def _ready(self, deadline: Deadline) -> DeviceFacts:
        """The facts. After a lost link: the folder is there again, old runs are ended, and it is the same phone."""
        with self._lock:
            if self._facts is not None and self._fresh:
                return self._facts
            self._touched = True
            self._present.clear()
            chores = dict(self._chores)
            parts, link = self._tell(
                lambda marker: _lines(chores) + scripts.prepare(self._base, self._folder, marker),
                deadline,
                any_link=True,
            )
            self._have_done(chores)
            self._boot_id = parse_boot_id(parts)  # no restart leaves a link as it is, so it is that of this one
            facts = make_facts(
                parts,
                serial=self._serial,
                model=self._model,
                precision=self._precision,
                cpu=self._cpu,
                threads=self._threads,
            )
            identity = _identity(facts)
            if self._facts is None:
                self._facts, self._identity = facts, identity
            elif identity != self._identity:
                raise DeviceGone(
                    f"{deadline.what}: another phone answers as {self._serial!r} now: it was {self._identity}, it is"
                    f" {identity}: open it anew"
                )
            for token, shell_pid in list(self._unended.items()):
                self._end(token, shell_pid, deadline)
            self._link.known, self._fresh = link, True
            return self._facts

    def _push(self, source: BinaryIO, name: str, deadline: Deadline) -> None:
        executable = bool(os.fstat(source.fileno()).st_mode & 0o111)
        source.seek(0)
        self._present.discard(name)
        partial = f".{name[:150]}.{secrets.token_hex(4)}.partial"
        try:
            with self._link.sync(deadline) as sync:
                if is_folder(sync, f"{self._folder}/{name}"):
                    raise Refused(f"{deadline.what}: a folder is in the way")
                send_file(sync, source, f"{self._folder}/{partial}", executable=executable)
                quit_sync(sync)
            self._add_chore(scripts.push_done(self._folder, partial, name))
            self._present.add(name)
        except Refused:
            with contextlib.suppress(TransportError):
                tidying = Deadline(_KILL_S, f"tidying up on {self._serial!r}")
                self._link.shell(scripts.remove(self._folder, partial), tidying, any_link=True)
            raise
        except BaseException:
            self._fresh = False  # what is half there is deleted before the next call
            raise

    def _add_chore(self, line: str) -> None:
        self._chores[next(self._numbers)] = line

    def _do_chores(self, deadline: Deadline) -> None:
        """Now, before something that is no script."""
        if chores := dict(self._chores):
            self._do("\n".join(chores.values()), deadline)
            self._have_done(chores)

    def _have_done(self, chores: Collection[int]) -> None:
        for number in chores:
            self._chores.pop(number, None)

    def _pull(self, name: str, deadline: Deadline) -> bytes:
        self._do_chores(deadline)
        with self._link.sync(deadline) as sync:
            content = receive_file(sync, f"{self._folder}/{name}")
            quit_sync(sync)
        return content

    def _run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None,
        deadline: Deadline,
        max_output_bytes: int,
        then: str = "",
    ) -> Completed:
        token = f"npas-{self._client}-{secrets.token_hex(8)}"
        chores = dict(self._chores)
        most_s = math.ceil(deadline.remaining_s + _WATCH_S)
        script = _lines(chores) + scripts.run(self._folder, argv, token, most_s=most_s, then=then)
        session: ShellSession | None = None
        try:
            with self._link.session(
                script, deadline, max_output_bytes=max_output_bytes, own_bytes=_HEADER_BYTES
            ) as session:
                completed = session.finish(stdin)
            self._have_done(chores)
            if (problem := scripts.problem(completed.stdout)) is None:
                return _result(completed, deadline, max_output_bytes)
        except BaseException as error:
            unopened = session is None and isinstance(error, DeviceGone | Refused | OtherLink)
            if not unopened and not self._end_now(token, _shell_pid(session)):
                _say_more(error, "whether the program has ended is not known; it is ended before the next call")
            if isinstance(error, DeviceGone) and _shell_pid(session) is not None:
                error.boot_id = self._boot_id
            raise
        raise Refused(f"{deadline.what}: {problem}")

    def _end_now(self, token: str, shell_pid: int | None) -> bool:
        """Ends a run beyond its deadline; if that does not work out, it is tried again before the next call."""
        self._unended[token] = shell_pid
        while len(self._unended) > _MOST_UNENDED:
            self._unended.pop(next(iter(self._unended)))
        try:
            self._end(token, shell_pid, Deadline(_KILL_S, f"end of a run on {self._serial!r}"))
        except TransportError:
            self._fresh = False
            return False
        return True

    def _end(self, token: str, shell_pid: int | None, deadline: Deadline) -> None:
        done = self._link.shell(scripts.end_run(token, shell_pid), deadline, any_link=True)
        if done.stdout.strip() != b"ended":
            raise Refused(f"{deadline.what}: the phone cannot end it: {_said(done)}")
        self._unended.pop(token, None)

    def _tell(
        self, script: Callable[[str], str], deadline: Deadline, *, any_link: bool = False
    ) -> tuple[dict[str, str], int]:
        """The parts of an answer, and the number of the link that it came through."""
        marker = f"npas-{secrets.token_hex(8)}"
        done, link = self._link.ask(script(marker), deadline, any_link=any_link)
        try:
            return scripts.parts(done.stdout, marker), link
        except ValueError as error:
            raise Refused(f"{deadline.what}: {error}: {_said(done)}") from None

    def _do(self, script: str, deadline: Deadline) -> None:
        done = self._link.shell(script, deadline)
        if done.exit_status != 0:
            raise Refused(f"{deadline.what}: {_said(done)}")


def _lines(chores: Mapping[int, str]) -> str:
    """Whatever they say is not an answer of the script that they go with."""
    return "".join(f"{{ {line}; }} >/dev/null 2>&1\n" for line in chores.values())


def _result(completed: Completed, deadline: Deadline, max_output_bytes: int) -> Completed:
    """The program's own, without our header. Raises Refused where there is none: then nothing is known."""
    header = _HEADER.match(completed.stdout)
    if header is None:
        raise Refused(f"{deadline.what}: the phone's shell answers with garbage: {_said(completed)}: restart it")
    stdout = completed.stdout[header.end() :]
    if len(stdout) + len(completed.stderr) > max_output_bytes:
        raise Refused(f"{deadline.what}: printed more than {max_output_bytes} bytes and was ended")
    return Completed(completed.exit_status, stdout, completed.stderr)


def _shell_pid(session: ShellSession | None) -> int | None:
    header = _HEADER.match(session.stdout[:_HEADER_BYTES]) if session is not None else None
    return int(header[1]) if header else None


def _cannot_start(stderr: bytes, name: str) -> bool:
    return f"./{name}".encode() in stderr and _NO_START.search(stderr) is not None


def _said(completed: Completed) -> str:
    """Of a script that failed, for people: whatever a phone says is shown as one printable line."""
    said = clean((completed.stderr or completed.stdout)[-200:].decode(errors="replace"))
    return f"{said!a} (exit status {completed.exit_status})"


def _say_more(error: BaseException, more: str) -> None:
    if isinstance(error, TransportError):
        error.args = (f"{error}; {more}",)


def _identity(facts: DeviceFacts) -> str:
    details = facts.details
    return f"{details['model']} {details['serial']} ({facts.target})"
