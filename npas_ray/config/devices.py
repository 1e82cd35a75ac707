"""The devices of a configuration: what measures. Which there are, not how they are reached."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from device_farm.compiler.target import TARGETS, Precision
from npas_ray.config.fields import listed, member, one_of, text, whole, whole_or_auto
from npas_ray.config.section import Section

OWN_KINDS = ("local", "adb")  # what a farm is made of
KINDS = (*OWN_KINDS, "farm")

Threads = Annotated[int, whole(1, 64)]
AdbServerAddress = Annotated[
    str, text(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}", "the address of an adb server, HOST:PORT")
]
FarmName = Annotated[
    str, text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a farm's name: up to 64 letters, digits, dots, dashes, underscores")
]
# whatever adb may list: it reaches no shell, and is shown with its control characters escaped
Serial = Annotated[str, text(r"[^\x00-\x1f\x7f]{1,200}", "a serial, as `npas devices list` shows it")]
# it names folders of a run, too
Model = Annotated[
    str,
    text(
        r"[^\x00-\x1f\x7f/.][^\x00-\x1f\x7f/]{0,99}",
        "a phone's model, as `npas devices list` shows it (no slashes, no dot first; with serials, any name)",
    ),
]


class LocalDevice(Section):
    """This machine."""

    kind: Literal["local"] = "local"
    cpu: Annotated[int | Literal["auto"], whole_or_auto(0, 4095)] = "auto"  # the (first) core that measures
    threads: Threads = 1  # that its latencies are for; each has a core of its own
    precision: Annotated[Precision, member(Precision)] = Precision.FP32

    @property
    def model(self) -> str:
        """What budgets and measurements call it."""
        return "local" if self.precision is Precision.FP32 else f"local-{self.precision}"

    @property
    def identity(self) -> str:
        """What of it decides results."""
        return self.model


class AdbDevice(Section):
    """Phones of one model on one adb server. They are interchangeable: any of them measures a candidate."""

    kind: Literal["adb"] = "adb"
    model: Model
    serials: Annotated[tuple[Serial, ...], *listed("serials")] | None = None  # none: all of that model, as they come
    server: AdbServerAddress = "127.0.0.1:5037"
    target: Annotated[str, one_of("auto", *TARGETS)] = "auto"  # what to compile for; auto asks a phone
    cpu: Annotated[int | Literal["auto"], whole_or_auto(0, 63)] = "auto"  # auto: the first of the fastest cores
    threads: Threads = 1

    @property
    def identity(self) -> str:
        """What of it decides results: what is measured, and what is compiled."""
        return self.model if self.target == "auto" else f"{self.model} ({self.target})"


class FarmDevice(Section):
    """Devices of one model in a farm that `npas farm start` started, shared with other searches."""

    kind: Literal["farm"] = "farm"
    farm: FarmName
    model: Model
    target: Annotated[str, one_of("auto", *TARGETS)] = "auto"  # what the farm compiles for; auto asks it

    @property
    def identity(self) -> str:
        """As that of a phone: who owns it does not matter."""
        return self.model if self.target == "auto" else f"{self.model} ({self.target})"


Device = Annotated[LocalDevice | AdbDevice | FarmDevice, Field(discriminator="kind")]
