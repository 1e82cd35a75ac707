"""Services on one phone, with the package's own exceptions turned into the three errors of a transport."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from device_farm.errors import DeadlineExceeded, DeviceGone, Refused, TransportError
from device_farm.transport.adb import advice
from device_farm.transport.adb.device_list import ListedDevice
from device_farm.transport.adb.server import AdbServer, is_tcp
from device_farm.transport.adb.shell import ShellSession
from device_farm.transport.adb.smart_socket import AdbFailure, LinkEnded, SmartSocket
from device_farm.transport.base import Completed, Deadline

_SHELL = "shell,v2,raw:"
_LOOK_S = 1.0  # to learn why something failed
_CONNECT_PART = 0.7  # of what is left of a deadline
_FIND_S = 3.0  # that a server takes to find its USB phones
_OPEN_S = 0.3  # that opening a link takes
_POLL_S = 0.02
_ANSWER_BYTES = 1 << 20  # of our own scripts


class PhoneLink:
    """Opens services. Where the server has gone or has forgotten a phone, it is brought back, and asked once more.

    With the number of a link in `known`, services are opened on that one only, unless a call says `any_link`; else
    OtherLink is raised.
    """

    def __init__(self, server: AdbServer, serial: str) -> None:
        self.server = server
        self.serial = serial
        self.known = 0

    def shell(self, script: str, deadline: Deadline, *, any_link: bool = False) -> Completed:
        """Runs a script of ours to its end. Raises DeviceGone, DeadlineExceeded, Refused."""
        return self.ask(script, deadline, any_link=any_link)[0]

    def ask(
        self, script: str, deadline: Deadline, *, max_output_bytes: int = _ANSWER_BYTES, any_link: bool = False
    ) -> tuple[Completed, int]:
        """What a script says, and the number of the link to the phone that said it (0: the server does not tell)."""
        with self.session(script, deadline, max_output_bytes=max_output_bytes, any_link=any_link) as session:
            try:
                return session.finish(), session.link
            except DeadlineExceeded as error:
                raise DeadlineExceeded(f"{error}; if adb lists it as ready, it is mute: {advice.MUTE.remedy}") from None

    @contextlib.contextmanager
    def session(
        self,
        script: str,
        deadline: Deadline,
        *,
        max_output_bytes: int = _ANSWER_BYTES,
        own_bytes: int = 0,
        any_link: bool = False,
    ) -> Iterator[ShellSession]:
        """A script that has been started; at the end its link is closed, whatever it does."""
        with self._service(_SHELL + script, deadline, any_link=any_link) as socket:
            yield ShellSession(socket, max_output_bytes=max_output_bytes, own_bytes=own_bytes)

    @contextlib.contextmanager
    def sync(self, deadline: Deadline) -> Iterator[SmartSocket]:
        """The service for files."""
        with self._service("sync:", deadline, any_link=False) as socket:
            try:
                yield socket
            except DeadlineExceeded as error:
                raise DeadlineExceeded(f"{error}; if adb lists it as ready, it is mute: {advice.MUTE.remedy}") from None

    @contextlib.contextmanager
    def _service(self, service: str, deadline: Deadline, *, any_link: bool) -> Iterator[SmartSocket]:
        with self._open(service, deadline, known=0 if any_link else self.known) as socket:
            try:
                yield socket
            except LinkEnded:
                raise self._broken_off(deadline, socket.link) from None

    def _open(self, service: str, deadline: Deadline, *, known: int) -> SmartSocket:
        try:
            return self._try_open(service, deadline, known=known)
        except DeviceGone:
            if not self._bring_back(deadline):
                raise
        return self._try_open(service, deadline, known=known)

    def _try_open(self, service: str, deadline: Deadline, *, known: int) -> SmartSocket:
        try:
            return self.server.open(self.serial, service, deadline, known_link=known)
        except AdbFailure as failure:
            raise self._failed(deadline, str(failure)) from None
        except LinkEnded:
            raise self._broken_off(deadline, None) from None
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"{error}; if adb lists it as ready, it is mute: {advice.MUTE.remedy}") from None

    def _bring_back(self, deadline: Deadline) -> bool:
        """Whether it is worth asking again: there was no server, or it did not know a phone that is reached by TCP.

        Takes a part of the time only, so that a phone which cannot be brought back is DeviceGone.
        """
        try:
            try:
                state = self._state(deadline)
            except DeviceGone:
                if not self.server.is_local:
                    return False
                self.server.start(timeout_s=deadline.remaining_s)
                state = "" if is_tcp(self.serial) else self._found_on_usb(deadline)
            if state == "offline":
                state = self._settled(deadline)
            if not is_tcp(self.serial) or state not in ("", "offline"):
                return state == "device"
            if state:  # adb itself tries again only after seconds
                self.server.disconnect(self.serial, timeout_s=deadline.remaining_s)
            self.server.connect(self.serial, timeout_s=_CONNECT_PART * deadline.remaining_s)
        except (DeviceGone, Refused) as error:
            raise DeviceGone(f"{deadline.what}: {error}") from None
        except DeadlineExceeded:
            return False
        return True

    def _found_on_usb(self, deadline: Deadline) -> str:
        """The state in a server that has just begun to look for its phones."""
        return self._awaited(("", "offline", "connecting", "authorizing"), _FIND_S, deadline)

    def _settled(self, deadline: Deadline) -> str:
        """The state when a link that somebody else is just opening is open: it must not be cut."""
        return self._awaited(("offline", "connecting"), _OPEN_S, deadline)

    def _awaited(self, passing: tuple[str, ...], patience_s: float, deadline: Deadline) -> str:
        end = time.monotonic() + min(_CONNECT_PART * deadline.remaining_s, patience_s)
        while (state := self._state(deadline)) in passing and time.monotonic() < end:
            time.sleep(_POLL_S)
        return state

    def is_ready(self, deadline: Deadline) -> bool:
        """Whether the server lists it as ready. Mends nothing, raises nothing."""
        try:
            return self._state(deadline) == "device"
        except TransportError:
            return False

    def _state(self, deadline: Deadline) -> str:
        """As the server lists it; empty if it does not."""
        found = self._listed(deadline)
        return found.state if found is not None else ""

    def _listed(self, deadline: Deadline) -> ListedDevice | None:
        devices = self.server.devices(timeout_s=min(max(deadline.remaining_s, 0.1), _LOOK_S))
        return next((device for device in devices if device.serial == self.serial), None)

    def _failed(self, deadline: Deadline, reason: str) -> TransportError:
        """adb said FAIL: because of the phone's state, or because the phone itself does not want to."""
        said = f"adb says {' '.join(reason.split())[:60]!r}"
        with contextlib.suppress(TransportError):
            if reason.strip() == "closed" and self._state(deadline) == "device":
                return Refused(f"{deadline.what}: {said}: {advice.REFUSES}")
        return self._gone(deadline, said)

    def _broken_off(self, deadline: Deadline, link: int | None) -> TransportError:
        """The answer is not complete: the phone's link was lost, or the phone itself has broken off."""
        with contextlib.suppress(TransportError):
            found = self._listed(deadline)
            if link and found is not None and (found.link, found.state) == (link, "device"):
                return Refused(
                    f"{deadline.what}: the phone broke off in the middle of its answer, though its link is there:"
                    " what it says is garbage: restart it"
                )
        return self._gone(deadline, "the link ended before the answer was complete")

    def _gone(self, deadline: Deadline, said: str) -> DeviceGone:
        try:
            state = self._state(deadline)
        except TransportError:
            why = f"there is no adb server at {self.server} any more: start it, and see in its log why it ended"
        else:
            if state == "device":
                why = "adb lists it as ready again: it was unplugged for a moment, or restarted"
            else:
                why = str(advice.of_state(state) if state else advice.ABSENT)
        return DeviceGone(f"{deadline.what}: {said}: {why}")
