"""Does the artifact that ships say what torch says over the whole test set, and is it as fast as was said?

On a phone of the device model where its adb server has one, else on this machine if that runs the artifact.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npas_ray.config import AdbDevice, FarmDevice, SearchConfig
from npas_ray.config.words import did_you_mean, printable, shown
from npas_ray.errors import InfrastructureError, JournalError, RunError, UserError
from npas_ray.journal import Journal
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.shipped import Shipped

if TYPE_CHECKING:
    from device_farm.compiler.artifact import Artifact
    from device_farm.transport.base import Transport

MIN_AGREEMENT = 0.999
MIN_LATENCY_OFF = 0.05  # phones of one model differ by 2 to 3 %; their interval counts where it is wider
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Latency:
    """Measured again, and what was shipped; ms."""

    again_ms: float
    shipped_ms: float
    allowed: float  # relative difference

    @property
    def off(self) -> float:
        return self.again_ms / self.shipped_ms - 1

    @property
    def agrees(self) -> bool:
        return abs(self.off) <= self.allowed


@dataclass(frozen=True)
class Verification:
    """Artifact against torch on the test images. All but `images` are fractions."""

    model: str
    images: int
    agreement: float  # of the labels
    artifact_accuracy: float
    torch_accuracy: float
    reported_accuracy: float  # what the report says
    device: str = "this machine"  # or a phone's serial
    emulated: bool = False
    latency: Latency | None = None  # on phones only

    @property
    def passed(self) -> bool:
        right = self.agreement >= MIN_AGREEMENT and self.torch_accuracy == self.reported_accuracy
        return right and (self.latency is None or self.latency.agrees)

    def __str__(self) -> str:
        where = f"{printable(self.device)}{' (EMULATED)' if self.emulated else ''}"
        lines = [
            f"{self.images} test images through the artifact for {printable(self.model)} on {where} and through torch",
            f"labels that agree   {self.agreement:.2%}",
            f"accuracy, artifact  {self.artifact_accuracy:.2%}",
            f"accuracy, torch     {self.torch_accuracy:.2%}",
            f"accuracy, report    {self.reported_accuracy:.2%}",
        ]
        if (latency := self.latency) is not None:
            off = f"{latency.off:+.1%}, at most {latency.allowed:.1%} is allowed"
            lines.append(f"latency             {latency.again_ms:.4g} ms, shipped {latency.shipped_ms:.4g} ms ({off})")
        return "\n".join([*lines, "verified" if self.passed else "NOT VERIFIED"])


def verify_run(run_dir: Path, *, model: str | None = None, server: str | None = None) -> list[Verification]:
    """Classifies the test set with the artifacts of `run_dir`/best and with torch: every model, or the one named.

    Phones are those of the adb servers in the run's configuration, or of `server`.

    Raises:
        RunError: no run, nothing shipped yet, files missing or damaged, nothing that runs any artifact.
        UserError: a model that was not shipped.
        FarmError, InfrastructureError: a phone or an adb server that was named does not work.
    """
    run = RunDirectory.existing(run_dir)
    shipped = Shipped(run.best)
    if not run.best.is_dir():
        raise RunError(f"{run_dir} has shipped nothing yet; finish it with `npas search CONFIG --resume`")
    if model is not None and model not in shipped.models:
        hint = did_you_mean(model, shipped.models)
        raise UserError(f"--device: expected one of {', '.join(shipped.models)}; got {shown(model)}{hint}")
    _check_server(server)
    config, found, reasons = _config(run), [], {}
    judge = _Judge(shipped)
    for name in shipped.models if model is None else [model]:
        artifact = _artifact(shipped, name)
        try:
            with _device(config, name, artifact, server=server) as (transport, device):
                found.append(judge.verify(transport, artifact, model=name, device=device, config=config))
        except _Unreachable as error:
            reasons[name] = str(error)
    if not found:
        raise RunError(
            f"{run.best} has no artifact for this machine or a phone that is here:"
            f" {'; '.join(f'{printable(name)}: {why}' for name, why in reasons.items())}"
        )
    return found


def _check_server(server: str | None) -> None:
    from device_farm.transport.adb.server import AdbServer

    try:
        AdbServer.at(server or "127.0.0.1:5037")
    except ValueError as error:
        raise UserError(f"--server: {error}") from None


class _Unreachable(Exception):
    """Nothing here runs an artifact."""


class _Judge:
    """What torch says, computed once."""

    def __init__(self, shipped: Shipped) -> None:
        import torch

        from npas_ray.training.optimise import logits

        self._summary = shipped.summary
        self._reported = float(self._summary["test_accuracy"])
        torch.set_num_threads(1)  # as in training: the same bits
        test = shipped.task().test
        self._expected = logits(shipped.network(), test.images).argmax(1).numpy()
        self._images = test.images.permute(0, 2, 3, 1).contiguous().numpy()  # NCHW -> NHWC
        self._labels = test.labels.numpy()

    def verify(
        self, transport: Transport, artifact: Artifact, *, model: str, device: str | None, config: SearchConfig
    ) -> Verification:
        """Raises FarmError."""
        from device_farm.measurement.classify import classify

        facts = transport.facts()
        got = classify(transport, artifact, self._images, timeout_s=TIMEOUT_S).argmax(1)
        return Verification(
            model=model,
            images=len(self._images),
            agreement=float((got == self._expected).mean()),
            artifact_accuracy=float((got == self._labels).mean()),
            torch_accuracy=float((self._expected == self._labels).mean()),
            reported_accuracy=self._reported,
            device=device or "this machine",
            emulated=facts.emulated,
            latency=None if device is None else self._latency(transport, artifact, model, config),
        )

    def _latency(self, transport: Transport, artifact: Artifact, model: str, config: SearchConfig) -> Latency:
        from device_farm.measurement.session import Meter

        meter = Meter(transport, rules=config.measurement.rules())
        again = meter.measure(artifact, config.measurement.protocol())
        shipped_ms = float(self._summary["latency_ms"][model])
        of_again = (again.ci_high_ms - again.ci_low_ms) / 2 / again.latency_ms
        allowed = max(_half_width(self._summary, model) + of_again, MIN_LATENCY_OFF)
        return Latency(again.latency_ms, shipped_ms, allowed)


def _half_width(summary: Mapping[str, Any], model: str) -> float:
    """Of what shipped, relative; 0 in runs that did not replicate."""
    from device_farm.measurement.codec import replicated_from_json

    try:
        return replicated_from_json(summary["replicated"][model]).half_width
    except (KeyError, TypeError, ValueError):
        return 0.0


def _config(run: RunDirectory) -> SearchConfig:
    """Raises RunError."""
    try:
        with Journal.open(run.journal, read_only=True) as journal:
            return SearchConfig.from_json(journal.config, name=str(run.journal))
    except JournalError as error:
        raise RunError(str(error)) from error


def _artifact(shipped: Shipped, model: str) -> Artifact:
    from device_farm.compiler import load_artifact
    from device_farm.errors import CompileError

    try:
        return load_artifact(shipped.artifact(model))
    except CompileError as error:
        raise RunError(str(error)) from error


@contextmanager
def _device(
    config: SearchConfig, model: str, artifact: Artifact, *, server: str | None
) -> Iterator[tuple[Transport, str | None]]:
    """What runs the artifact: a phone and its serial, or this machine and None. Raises _Unreachable."""
    from device_farm.compiler.target import host_targets
    from device_farm.transport.local import LocalTransport

    wanted = next((device for device in config.devices if device.model == model), None)
    if isinstance(wanted, FarmDevice) and server is not None:
        wanted = AdbDevice(model=model, server=server, target=wanted.target)
    why = "its phones are a farm's: --server HOST:PORT names their adb server"
    if isinstance(wanted, AdbDevice):
        wanted = wanted if server is None else wanted.model_copy(update={"server": server})
        try:
            transport, serial = _phone(wanted, artifact)
        except _Unreachable as error:
            if server is not None:
                raise InfrastructureError(str(error)) from None
            why = str(error)
        else:
            with contextlib.closing(transport):
                yield transport, serial
            return
    if artifact.target not in {target.name for target in host_targets()}:
        raise _Unreachable(f"{artifact.target} does not run here" + ("" if wanted is None else f", and {why}"))
    with tempfile.TemporaryDirectory(prefix="npas-verify-") as work_dir:
        with contextlib.closing(LocalTransport(Path(work_dir), threads=artifact.threads)) as local:
            yield local, None


def _phone(wanted: AdbDevice, artifact: Artifact) -> tuple[Transport, str]:
    """The first phone of the model that answers. Raises _Unreachable."""
    from device_farm.compiler import TARGETS
    from device_farm.compiler.element import Element
    from device_farm.compiler.target import Precision
    from device_farm.errors import TransportError
    from device_farm.transport.adb.server import AdbServer
    from device_farm.transport.adb.transport import AdbTransport
    from npas_ray.runs.devices import is_wanted

    complaints: list[str] = []
    server = AdbServer.at(wanted.server)
    half = TARGETS[artifact.target].element is Element.FLOAT16
    try:
        listed: Sequence[Any] = [
            entry for entry in server.devices() if is_wanted(wanted, serial=entry.serial, model=entry.model)
        ]
    except TransportError as error:
        raise _Unreachable(str(error)) from error
    for entry in listed:
        transport = AdbTransport(
            server,
            entry.serial,
            model=wanted.model,
            cpu=None if wanted.cpu == "auto" else int(wanted.cpu),
            threads=artifact.threads,
            precision=Precision.FP16 if half else Precision.FP32,
        )
        try:
            facts = transport.facts()
            if facts.target == artifact.target:
                return transport, entry.serial
            complaints.append(f"{entry.serial} runs {facts.target}")
        except TransportError as error:
            complaints.append(str(error))
        transport.close()
    raise _Unreachable(
        f"the adb server {wanted.server} has no {shown(wanted.model)} that runs {artifact.target}"
        + (f": {'; '.join(complaints)}" if complaints else "")
    )
