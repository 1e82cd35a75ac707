"""The configuration of a farm that several searches share: what `npas farm start` reads. See examples/farm.yaml."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from device_farm.compiler.target import Precision
from npas_ray.config.devices import AdbServerAddress, FarmName, Model, Serial, Threads
from npas_ray.config.document import read_document
from npas_ray.config.fields import Positive, listed, mapping, member, misplaced, text, whole, whole_or_auto
from npas_ray.config.models import CompilationConfig, MeasurementConfig
from npas_ray.config.schema import keys_at
from npas_ray.config.section import Section
from npas_ray.config.validation import validated_as

Host = Annotated[str, text(r"[A-Za-z][A-Za-z0-9_]{0,63}", "a Ray resource of the nodes that have the phones")]
Client = Annotated[str, text(r"[^\x00-\x1f\x7f]{1,200}", "the name of a search's run")]


class PhonesOfServer(Section):
    """Phones of an adb server: all of them, as they come and go, or those with `serials`."""

    kind: Literal["adb"] = "adb"
    server: AdbServerAddress = "127.0.0.1:5037"  # as seen from the host that has the phones
    serials: Annotated[tuple[Serial, ...], *listed("serials")] | None = None
    model: Model | None = None  # what those with `serials` are called; else each is what it says
    host: Host | None = None  # every node with this Ray resource has such a server; None: the node that starts the farm
    cpu: Annotated[int | Literal["auto"], whole_or_auto(0, 63)] = "auto"
    threads: Threads = 1
    precision: Annotated[Precision, member(Precision)] = Precision.FP32

    @model_validator(mode="after")
    def _names_are_for_some(self) -> PhonesOfServer:
        if self.model is not None and self.serials is None:
            raise misplaced(
                ("model",), "serials beside it: without them every phone is of the model it says", self.model
            )
        return self


class CoreOfNode(Section):
    """A core of the node that starts the farm, or one for each thread."""

    kind: Literal["local"] = "local"
    cpu: Annotated[int, whole(0, 4095)]  # keep other work off it: nobody reserves it
    threads: Threads = 1
    precision: Annotated[Precision, member(Precision)] = Precision.FP32
    model: Model = "local"


class FarmCluster(Section):
    """The Ray cluster that the farm lives on. It must run already: the farm lives as long as it does."""

    address: Annotated[
        str,
        text(
            r"auto|(ray://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}",
            "'auto' or the address of a running Ray cluster, HOST:PORT or ray://HOST:PORT",
        ),
    ] = "auto"


FarmMember = Annotated[PhonesOfServer | CoreOfNode, Field(discriminator="kind")]


class FarmConfigFile(Section):
    """A farm as its owner describes it. Raises pydantic's ValidationError; `load_farm` says it in words."""

    name: FarmName
    cluster: FarmCluster = FarmCluster()
    devices: Annotated[tuple[FarmMember, ...], *listed("devices")]
    journal: Annotated[str, text(r"[^\x00]{1,4096}", "a folder on a local disk of this machine")] | None = None
    measurement: MeasurementConfig = MeasurementConfig()
    compilation: CompilationConfig = CompilationConfig()
    shares: Annotated[Mapping[Client, Positive], mapping] = Field(default_factory=dict)  # by a run's name; others: 1

    @model_validator(mode="after")
    def _cores_once(self) -> FarmConfigFile:
        twice = [
            (cpu, index)
            for (cpu, count) in Counter(d.cpu for d in self.devices if isinstance(d, CoreOfNode)).items()
            if count > 1
            for index, device in enumerate(self.devices)
            if isinstance(device, CoreOfNode) and device.cpu == cpu
        ]
        if twice:
            raise misplaced(("devices", twice[-1][1], "cpu"), "a core that no other device has", twice[-1][0])
        return self


def load_farm(path: Path) -> FarmConfigFile:
    """The farm that a YAML file describes; without a name it is called like its file. Raises ConfigError."""
    document = read_document(path)
    data = {
        key: {} if value is None and keys_at((key,), FarmConfigFile) else value for key, value in document.data.items()
    }
    if "name" not in data and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", path.stem):
        data["name"] = path.stem
    places = {loc: f"{document.name}:{line}" for loc, line in document.lines.items()}
    return validated_as(FarmConfigFile, data, name=document.name, places=places)
