"""What can go wrong with an emulated phone, on demand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class PhoneFault(StrEnum):
    """The comment of each says what a host sees. Those marked (once) go by themselves after one time."""

    REBOOT = "reboot"  # (once) the link closes, programs are gone, it comes back after `value` s (2)
    UNPLUG = "unplug"  # the link closes and nobody answers the port
    UNAUTHORIZED = "unauthorized"  # the link closes; from now on no key is believed
    OFFLINE = "offline"  # the link closes; connections are taken and closed again
    MUTE = "mute"  # the link stays; nothing is read, nothing is answered until it is healed
    SLOW = "slow"  # everything that arrives waits for `value` s (0.2)
    REFUSE = "refuse"  # no service is opened
    HANG = "hang"  # (once) the next program is stopped right after its start
    DISK_FULL = "disk-full"  # nothing can be written
    ORPHAN = "orphan"  # a lost link leaves programs alive, with their stdin open
    THROTTLED = "throttled"  # the clock runs at `value` of its speed (0.6)
    NOISY = "noisy"  # times vary, by `value` (0.3)
    FLIPPED = "flipped"  # programs compute a wrong answer
    CRASH = "crash"  # programs are ended by SIGABRT
    GARBAGE = "garbage"  # commands and programs print random bytes instead of what they have to say
    ENDLESS = "endless"  # they print for ever
    WRONG_LENGTHS = "wrong-lengths"  # frames and pieces of files announce lengths that are none
    LINK_GARBAGE = "link-garbage"  # (once) the phone sends what is no packet


_ONCE = frozenset({PhoneFault.REBOOT, PhoneFault.HANG, PhoneFault.LINK_GARBAGE})
_VALUES = {
    PhoneFault.REBOOT: 2.0,
    PhoneFault.SLOW: 0.2,
    PhoneFault.THROTTLED: 0.6,
    PhoneFault.NOISY: 0.3,
}


@dataclass
class _Active:
    value: float
    times: int | None  # None: until it is healed


class Faults:
    """Those that a phone has now."""

    def __init__(self) -> None:
        self._active: dict[PhoneFault, _Active] = {}

    def add(self, fault: PhoneFault, *, value: float | None = None, times: int | None = None) -> None:
        """`times` is how often it strikes; None: once or until it is healed, as the fault is."""
        if times is None and fault in _ONCE:
            times = 1
        self._active[fault] = _Active(_VALUES.get(fault, 0.0) if value is None else value, times)

    def remove(self, fault: PhoneFault) -> None:
        self._active.pop(fault, None)

    def value(self, fault: PhoneFault) -> float | None:
        """None if the phone does not have it."""
        active = self._active.get(fault)
        return None if active is None else active.value

    def strikes(self, fault: PhoneFault) -> bool:
        """Whether it strikes now; counts."""
        active = self._active.get(fault)
        if active is None:
            return False
        if active.times is not None:
            active.times -= 1
            if active.times <= 0:
                del self._active[fault]
        return True

    def __contains__(self, fault: PhoneFault) -> bool:
        return fault in self._active

    def __iter__(self) -> Iterator[PhoneFault]:
        return iter(list(self._active))
