"""A calibration from a configuration to its file: measure on the farm, fit, judge. The thin shell around pure parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_farm.calibration.breakeven import Verdict
from device_farm.calibration.collecting import Case, collect, is_complete
from device_farm.calibration.file import Calibration, Identity, Network, write_calibration
from device_farm.calibration.journal import Journal, Record, open_journal
from device_farm.calibration.predictor import Observation
from device_farm.calibration.steps import describe
from device_farm.calibration.validation import Validation, validate
from device_farm.compiler import Target
from device_farm.compiler.graph import Graph
from device_farm.errors import CalibrationError
from device_farm.measurement.types import Measurement
from npas_ray.calibration.design import default_count, design
from npas_ray.calibration.pieces import Pieces
from npas_ray.calibration.points import breakeven_map
from npas_ray.calibration.prediction import CandidatePredictor
from npas_ray.calibration.store import identity_of, target_of
from npas_ray.config import SearchConfig
from npas_ray.errors import InfrastructureError
from npas_ray.networks.lowering import lower
from npas_ray.runs.progress import Progress
from npas_ray.runs.setting import backbone_of, block_height_of, make_space
from npas_ray.space.choices import Architecture


@dataclass(frozen=True)
class Outcome:
    """A finished calibration, and what is to be said of it."""

    path: Path
    calibration: Calibration
    validation: Validation
    wanted: int  # candidates that were to be measured
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        calibration = self.calibration
        errors = self.validation.relative_errors
        return {
            "file": str(self.path),
            "device_model": calibration.identity.device_model,
            "target": calibration.identity.target,
            "candidates": {"wanted": self.wanted, "measured": len(calibration.networks), "failed": len(self.failures)},
            "left_out_of_fits": {
                "count": len(errors),
                "within_10_percent": float((errors < 0.1).mean()) if len(errors) else None,
                "median_error": float(sorted(errors)[len(errors) // 2]) if len(errors) else None,
                "rank_correlation": self.validation.rank_correlation if len(errors) > 2 else None,
            },
            "points": {verdict.value: len(self.points(verdict)) for verdict in Verdict},
            "slower": [f"{point.layer} {point.choice}" for point in self.points(Verdict.SLOWER)],
        }

    def points(self, verdict: Verdict) -> list[Any]:
        return [point for point in self.calibration.points if point.verdict is verdict]

    def __str__(self) -> str:
        calibration = self.calibration
        emulated = ", emulated" if calibration.device.get("emulated") else ""
        shared = sum(not network.observation.quiet for network in calibration.networks)
        note = f", {shared} of them on a core that was busy" if shared else ""
        lines = [
            f"device      {calibration.identity.device_model} ({calibration.identity.target}{emulated})",
            f"measured    {len(calibration.networks)} of {self.wanted} candidates{note}",
            *(f"failed      {failure}" for failure in self.failures[:3]),
        ]
        lines.append(f"predictor   {self._judged()}")
        pays, slower, unclear = (len(self.points(v)) for v in (Verdict.PAYS, Verdict.SLOWER, Verdict.UNCLEAR))
        lines.append(
            f"break-even  of {pays + slower + unclear} pruned choices {pays} are faster than dense,"
            f" {slower} slower, {unclear} within the noise"
        )
        lines += [f"  slower    {point}" for point in self.points(Verdict.SLOWER)[:20]]
        lines += [f"            and {slower - 20} more"] if slower > 20 else []
        lines += [f"file        {self.path}"]
        return "\n".join(lines)

    def _judged(self) -> str:
        errors = sorted(self.validation.relative_errors)
        if len(errors) < 3:
            return "not judged: the core was busy during nearly all measurements; calibrate again on a calmer machine"
        within = sum(error < 0.1 for error in errors) / len(errors)
        return (
            f"of {len(errors)} candidates left out of the fit {within:.1%} within 10 %, median error"
            f" {errors[len(errors) // 2]:.1%}, rank correlation {self.validation.rank_correlation:.3f}"
        )


def run_calibration(
    config: SearchConfig, model: str, path: Path, *, candidates: int | None, progress: Progress
) -> Outcome:
    """Measures candidates of the configuration's space on a device of the model and writes the calibration to `path`.

    What was measured is in `path`.journal at once: after any end the same call goes on.
    Raises InfrastructureError, FarmError.
    """
    space = make_space(config)
    architectures = design(space, candidates or default_count(space), seed=config.seed)
    identity = identity_of(config, model)
    try:
        with open_journal(journal_path(path), identity) as journal:
            _measure(config, model, architectures, journal, progress=progress)
            progress.phase("fitting")
            outcome = conclude(config, identity, architectures, journal.records, path=path)
            write_calibration(path, outcome.calibration)
    except OSError as error:
        raise InfrastructureError(f"cannot write {error.filename or path}: {error.strerror}") from error
    return outcome


def journal_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.journal")


def conclude(
    config: SearchConfig,
    identity: Identity,
    architectures: Sequence[Architecture],
    records: Mapping[tuple[str, ...], Record],
    *,
    path: Path,
) -> Outcome:
    """The calibration that the measured candidates give. Pure. Raises CalibrationError if they are too few."""
    backbone, block_height = backbone_of(config), block_height_of(config)
    target = target_of(config, identity.device_model)
    networks, failures, measured = [], [], []
    for architecture in architectures:
        record = records[tuple(architecture.to_json())]
        if record.latency_ms is None:
            failures.append(f"{' '.join(record.label)}: {record.failure}")
            continue
        graph = lower(backbone, architecture, block_height=block_height)
        networks.append(Network(record.label, observation_of(graph, record, target)))
        measured.append(record)
    observations = [network.observation for network in networks]
    if not observations:
        raise CalibrationError("not one candidate could be measured")
    validation = validate(observations)
    loads = [record.load_1min for record in measured if record.load_1min is not None]
    space = make_space(config)
    calibration = Calibration(
        identity=identity,
        networks=tuple(networks),
        stretch=tuple(validation.stretch.tolist()),
        misfit=validation.misfit,
        taken_at=max(record.taken_at for record in measured),
        device=measured[-1].device,
        conditions={
            "since": min(record.taken_at for record in measured),
            "quiet": sum(record.quiet for record in measured),
            "load_1min": [min(loads), max(loads)] if loads else [],
        },
    )
    predictor = CandidatePredictor(Pieces(backbone, target, block_height), calibration.predictor())
    seen = [Architecture.from_json(list(network.label)) for network in networks]
    calibration = replace(calibration, points=breakeven_map(space, predictor, seen))
    return Outcome(path, calibration, validation, len(architectures), tuple(failures))


def observation_of(graph: Graph, record: Record, target: Target) -> Observation:
    """A measured candidate with its steps. Raises CalibrationError if the profile is of other steps."""
    steps = describe(graph, target)
    if record.latency_ms is None or [step.name for step in steps] != [name for name, _ in record.steps_ms]:
        raise CalibrationError(f"the profile of {' '.join(record.label)} has other steps than its plan")
    times = tuple(time_ms for _, time_ms in record.steps_ms)
    return Observation(steps, times, record.latency_ms, record.relative_error, record.quiet)


def case_of(config: SearchConfig, architecture: Architecture) -> Case:
    """A candidate as a network to measure."""

    def graph() -> Graph:
        return lower(backbone_of(config), architecture, block_height=block_height_of(config))

    return Case(tuple(architecture.to_json()), graph)


def _measure(
    config: SearchConfig, model: str, architectures: Sequence[Architecture], journal: Journal, *, progress: Progress
) -> None:
    cases = [case_of(config, architecture) for architecture in architectures]
    told = _teller(cases, journal, progress)
    if is_complete(cases, journal):
        return
    from npas_ray.runs.ray_session import in_a_line, prepare_ray

    prepare_ray()
    from ray.exceptions import RayError

    from device_farm.transport import cores
    from npas_ray.runs.ray_session import ray_session
    from npas_ray.runs.staff import farm_of, reserve_cores

    devices = tuple(device for device in config.devices if device.model == model)
    plan = reserve_cores(config.model_copy(update={"devices": devices}), progress)
    try:
        progress.phase("starting Ray")
        workers = max(1, len(plan.others))
        busy = config.model_copy(
            update={"devices": devices, "compilation": config.compilation.model_copy(update={"workers": workers})}
        )
        with (
            ray_session(config.cluster.address, num_cpus=workers + 1),
            farm_of(busy, reserved=plan.measuring, progress=progress) as farm,
        ):
            progress.phase("measuring")

            def submit(graph: Graph, seed: int) -> Callable[[], Measurement]:
                return farm.submit(graph, model=model, seed=seed).result

            def at_once() -> int:  # one entry of the configuration may stand for many phones, and they come and go
                there = sum(d.facts is not None and d.facts.model == model for d in farm.devices())
                return workers + 1 + max(len(devices), there)

            collect(cases, submit, journal, at_once=at_once, told=told)
    except RayError as error:
        raise InfrastructureError(f"Ray failed: {in_a_line(error)}") from error
    finally:
        cores.release(plan)


def _teller(cases: Sequence[Case], journal: Journal, progress: Progress) -> Callable[[Record], None]:
    labels = [case.label for case in cases]

    def tell(_: Record) -> None:
        known = [journal.records[label] for label in labels if label in journal.records]
        failed = sum(record.failure is not None for record in known)
        progress.update(len(known), len(labels), over_budget=0, failed=failed, best=None)

    return tell
