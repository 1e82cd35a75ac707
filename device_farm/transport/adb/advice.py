"""What adb's states of a device mean, and what to do: for errors and for `npas devices doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What is wrong, in half a sentence, and what a person does about it."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


ABSENT = Advice(
    "adb does not see it",
    "plug it in, unlock it and switch USB debugging on; try another cable or port of the hub; over TCP: npas devices"
    " connects it again by itself once it answers",
)
MUTE = Advice(
    "adb lists it as ready, but it does not answer",
    "unplug it and plug it in again; if it stays mute, restart it; several mute phones at once are a hub without power",
)
REFUSES = Advice(
    "it refuses to open a shell",
    "restart it; if that does not help, it is locked down (a work profile, kiosk mode) or no phone",
)
_BY_STATE = {
    "unauthorized": Advice(
        "it does not trust this machine's adb key",
        "unlock it and accept 'Allow USB debugging' (always allow); if it does not ask, revoke USB debugging"
        " authorisations in its developer options and plug it in again",
    ),
    "authorizing": Advice("it waits for its key", "unlock it and accept 'Allow USB debugging'"),
    "offline": Advice(
        "its link is open, but it does not take part",
        "wait if it is starting; else unplug it and plug it in again, then restart it",
    ),
    "connecting": Advice("it is being connected", "wait some seconds"),
    "no permissions": Advice(
        "this user may not open its USB device",
        "install the udev rules of Android (package android-sdk-platform-tools-common), be in the group plugdev, plug"
        " it in again, and restart the adb server",
    ),
    "recovery": Advice("it is in recovery mode", "restart it: adb -s SERIAL reboot"),
    "sideload": Advice("it waits for an update (sideload)", "restart it"),
    "rescue": Advice("it is in rescue mode", "restart it"),
    "bootloader": Advice("it is in its bootloader", "start it: fastboot reboot"),
    "host": Advice("it is a host and no phone", "unplug it"),
    "detached": Advice("another process keeps it (adb detach)", "adb -s SERIAL attach"),
}


def of_state(state: str) -> Advice:
    """Of every state but "device"."""
    unknown = Advice(f"adb says {state[:50]!r}", "unplug it and plug it in again, then restart it")
    return _BY_STATE.get(state, unknown)
