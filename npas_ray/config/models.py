"""The search configuration: what a user decides, checked when it is made. See examples/demo.yaml.

Everything but the name has a default, and `load_config` takes the name from the file's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.finalists import Effort
from device_farm.measurement.types import Protocol
from npas_ray.config.admission import AdmissionConfig
from npas_ray.config.devices import Device, FarmDevice, LocalDevice
from npas_ray.config.fields import (
    Count,
    NotNegative,
    Positive,
    Rate,
    Settings,
    listed,
    mapping,
    member,
    misplaced,
    number,
    one_of,
    text,
    whole,
    yes_or_no,
)
from npas_ray.config.section import Section
from npas_ray.config.warm_start import WarmStartSource
from npas_ray.networks.backbone import BACKBONES
from npas_ray.search.axes import ENERGY, LATENCY, SIZE, latency_on, model_of
from npas_ray.search.names import POLICY_NAMES
from npas_ray.space.choices import RATES, Operator, Scheme

# the head's operator is not chosen
_OPERATORS = tuple(operator for operator in Operator if operator is not Operator.FC)
# unstructured pruning is an accuracy reference that no kernel makes fast: it must be asked for
_SCHEMES = (Scheme.FILTER, Scheme.PATTERN, Scheme.BLOCK_PUNCHED, Scheme.BLOCK_BASED, Scheme.KERNEL_BLOCK)

Operators = Annotated[
    tuple[Annotated[Operator, member(Operator, without=(Operator.FC,))], ...],
    *listed("operators", sort=list(Operator).index),
]
Schemes = Annotated[tuple[Annotated[Scheme, member(Scheme)], ...], *listed("schemes", sort=list(Scheme).index)]
Rates = Annotated[tuple[Rate, ...], *listed("rates", sort=float)]
CalibrationFile = Annotated[
    str, text(r"[^\x00-\x1f]{1,4096}", "'auto' or the file that `npas calibrate` wrote")
]  # "auto": what lies in its default place


Axis = Annotated[
    str,
    text(
        rf"{LATENCY}|{LATENCY}:.{{1,200}}|{SIZE}|{ENERGY}",
        f"{LATENCY} (on every device model), {LATENCY}:MODEL, {SIZE} or {ENERGY}; the accuracy always is one",
    ),
]


class TaskConfig(Section):
    """What the networks learn."""

    name: Annotated[str, one_of("digits")] = "digits"
    train_images: Annotated[int, whole(100, 1_000_000)] = 2000


class LayerConfig(Section):
    """What one layer may become, where that differs from the others."""

    operators: Operators | None = None
    schemes: Schemes | None = None
    rates: Rates | None = None


class SpaceConfig(Section):
    """What the layers may become."""

    backbone: Annotated[str, one_of(*BACKBONES)] = "digits"
    operators: Operators = _OPERATORS
    schemes: Schemes = _SCHEMES
    rates: Rates = RATES
    layers: Annotated[Mapping[str, LayerConfig], mapping] = Field(default_factory=dict)  # by block name, or "fc"
    breakeven: CalibrationFile | None = None  # leaves out what is slower than dense

    @model_validator(mode="after")
    def _layers_exist(self) -> SpaceConfig:
        backbone = BACKBONES[self.backbone]
        known = (*(block.name for block in backbone.blocks), *(("fc",) if backbone.searchable_head else ()))
        for name in self.layers:
            if name not in known:
                raise misplaced(("layers", name), f"a layer of {self.backbone}: {', '.join(known)}", name, names=known)
        return self

    def spec(self) -> dict[str, Any]:
        """What SearchSpace.from_spec takes."""
        return self.model_dump(mode="json", exclude={"backbone", "breakeven"}, exclude_none=True)


class PolicyConfig(Section):
    """Who proposes candidates, and how many."""

    policy: Annotated[str, one_of(*POLICY_NAMES)] = "npas"
    candidates: Annotated[int, whole(1, 1_000_000)] = 48
    settings: Settings = Field(default_factory=dict)  # of that policy; it checks them
    predictor: CalibrationFile | None = None  # tells the policy latencies before they are measured, if it listens
    skip_over_budget: Annotated[bool, yes_or_no()] = False  # what surely exceeds a budget is not even compiled
    # earlier runs and lists to begin with; see docs/warm_start.md
    warm_start: Annotated[tuple[WarmStartSource, ...], *listed("sources", least=0)] = ()

    @model_validator(mode="after")
    def _skipping_needs_a_predictor(self) -> PolicyConfig:
        if self.skip_over_budget and self.predictor is None:
            raise misplaced(("skip_over_budget",), "false, as there is no search.predictor", True)
        return self


class ObjectiveConfig(Section):
    """What is looked for: the most accurate network within the budgets (best), or all that nothing beats (front).

    A budget is a number of ms, or a share of what the dense network (3x3 everywhere) takes on that device model. What
    counts against it is the latency that the true one does not exceed with probability `certainty`.
    """

    mode: Annotated[Literal["best", "front"], one_of("best", "front")] = "best"
    axes: Annotated[tuple[Axis, ...], *listed("axes")] = (LATENCY,)  # of the front, beside the accuracy
    budgets_ms: Annotated[Mapping[str, Positive], mapping] = Field(default_factory=dict)  # by device model
    budgets_of_dense: Annotated[Mapping[str, Positive], mapping] = Field(default_factory=dict)
    alpha: NotNegative = 1.0
    certainty: Annotated[float, number("in 0.5..0.9999", lambda share: 0.5 <= share <= 0.9999)] = 0.975

    @model_validator(mode="after")
    def _axes_are_of_a_front(self) -> ObjectiveConfig:
        if self.mode == "best" and self.axes != type(self).model_fields["axes"].default:
            raise misplaced(("axes",), "nothing here, as objective.mode is best; a front has axes", list(self.axes))
        return self


class TrainingConfig(Section):
    """How accuracy is found: `epochs` for every candidate, `final_epochs` for the best one.

    With a ladder a candidate is first trained for the epochs of each of its rungs, and only the best `keep` of a rung
    go on from there: see docs/fast_evaluation.md for when that pays.
    """

    epochs: Annotated[int, whole(0, 1000)] = 2
    ladder: Annotated[tuple[Annotated[int, whole(0, 1000)], ...], *listed("epochs", sort=int, least=0)] = ()
    keep: Annotated[float, number("> 0 and < 1", lambda share: 0 < share < 1)] = 0.5  # of each rung
    workers: Count = "auto"
    final_epochs: Annotated[int, whole(0, 10_000)] = 20

    @model_validator(mode="after")
    def _rungs_lead_up_to_the_epochs(self) -> TrainingConfig:
        for index, rung in enumerate(self.ladder):
            if rung >= self.epochs:
                expected = f"fewer epochs than training.epochs, which is {self.epochs} and the last rung"
                raise misplaced(("ladder", index), expected, rung)
        if not self.ladder and "keep" in self.model_fields_set and self.keep != type(self).model_fields["keep"].default:
            raise misplaced(("keep",), "nothing here, as there is no training.ladder", self.keep)
        return self


class CompilationConfig(Section):
    """How many compile side by side."""

    workers: Count = 1


class FinalistsConfig(Section):
    """Finalists are measured again, in other sessions and on other phones: device_farm.measurement.finalists.Effort."""

    half_width: Annotated[float, number("> 0 and at most 1", lambda r: 0 < r <= 1)] = Effort.half_width
    sessions: Annotated[int, whole(1, 100)] = Effort.most  # at most, on each device model; 1: the search's own

    def effort(self) -> Effort:
        return Effort(half_width=self.half_width, most=self.sessions)


class MeasurementConfig(Section):
    """How a latency is taken: device_farm.measurement.types.Protocol."""

    warmup_s: Annotated[float, number("in 0..60", lambda s: 0 <= s <= 60)] = Protocol.warmup_s
    min_time_s: Annotated[float, number("> 0 and at most 600", lambda s: 0 < s <= 600)] = Protocol.min_time_s
    min_samples: Annotated[int, whole(1, 1_000_000)] = Protocol.min_samples
    max_samples: Annotated[int, whole(1, 1_000_000)] = Protocol.max_samples
    max_relative_ci: Annotated[float, number("> 0 and at most 1", lambda r: 0 < r <= 1)] = Protocol.max_relative_ci
    attempts: Annotated[int, whole(1, 100)] = Protocol.attempts
    deadline_s: Annotated[float, number("> 0 and at most 86400", lambda s: 0 < s <= 86_400)] = Protocol.deadline_s
    # of devices with a sentinel (docs/measurement.md, "Phones")
    sentinel_every_s: Annotated[float, number("in 0..3600", lambda s: 0 <= s <= 3600)] = Protocol.sentinel_every_s
    max_correction: Annotated[float, number("in 0..1", lambda r: 0 <= r <= 1)] = Protocol.max_correction
    max_unexplained: Annotated[float, number("in 0..1", lambda r: 0 <= r <= 1)] = Protocol.max_unexplained
    max_drift: Annotated[float, number("> 0 and at most 10", lambda r: 0 < r <= 10)] = Protocol.max_drift
    admission: AdmissionConfig = AdmissionConfig()  # when a phone may measure
    finalists: FinalistsConfig = FinalistsConfig()  # how well the latency of what is reported must be known

    @model_validator(mode="after")
    def _possible(self) -> MeasurementConfig:
        if self.min_samples > self.max_samples:
            expected = f"at most max_samples, which is {self.max_samples}"
            raise misplaced(("min_samples",), expected, self.min_samples)
        if self.warmup_s + self.min_time_s >= self.deadline_s:
            expected = f"more than warmup_s + min_time_s, which is {self.warmup_s + self.min_time_s:g}"
            raise misplaced(("deadline_s",), expected, self.deadline_s)
        return self

    def protocol(self) -> Protocol:
        return Protocol(**self.model_dump(exclude={"admission", "finalists"}))

    def rules(self) -> AdmissionRules:
        return self.admission.rules()


class ClusterConfig(Section):
    """Where it runs: a Ray of its own on this machine, or somebody's."""

    address: Annotated[
        str,
        text(
            r"local|auto|(ray://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}",
            "'local', 'auto' or the address of a Ray cluster, HOST:PORT or ray://HOST:PORT",
        ),
    ] = "local"
    cpus: Count = "auto"  # of the local one


class SearchConfig(Section):
    """A whole search. Raises pydantic's ValidationError; `load_config` and `from_json` say it in words."""

    name: Annotated[
        str, text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a name of up to 64 letters, digits, dots, dashes, underscores")
    ]
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0
    task: TaskConfig = TaskConfig()
    space: SpaceConfig = SpaceConfig()
    search: PolicyConfig = PolicyConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    training: TrainingConfig = TrainingConfig()
    devices: Annotated[tuple[Device, ...], *listed("devices")] = (LocalDevice(),)
    compilation: CompilationConfig = CompilationConfig()
    measurement: MeasurementConfig = MeasurementConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _one_farm(self) -> SearchConfig:
        farms = {device.farm for device in self.devices if isinstance(device, FarmDevice)}
        if not farms:
            return self
        if len(farms) > 1 or not all(isinstance(device, FarmDevice) for device in self.devices):
            expected = "devices of one farm, and no others beside them: a search measures in one place"
            raise misplaced(("devices",), expected, [getattr(device, "farm", device.kind) for device in self.devices])
        if self.cluster.address == "local":
            expected = f"the Ray cluster of the farm {farms.pop()!r}: HOST:PORT, or auto for the one of this machine"
            raise misplaced(("cluster", "address"), expected, "local")
        return self

    @model_validator(mode="after")
    def _budgets_have_devices(self) -> SearchConfig:
        for kind in ("budgets_ms", "budgets_of_dense"):
            for model in getattr(self.objective, kind):
                if model not in self.models:
                    expected = f"a model among the devices: {', '.join(self.models)}"
                    raise misplaced(("objective", kind, model), expected, model, names=self.models)
        for index, axis in enumerate(self.objective.axes):
            on = model_of(axis)
            if on is not None and (on not in self.models or LATENCY in self.objective.axes):
                words = tuple(latency_on(model) for model in self.models)
                expected = f"latency on a model among the devices: {', '.join(words)}"
                if on in self.models:
                    expected = "no second axis for it beside 'latency', which is the latency on every device model"
                raise misplaced(("objective", "axes", index), expected, axis, names=words)
        for model, share in self.objective.budgets_of_dense.items():
            if model in self.objective.budgets_ms:
                raise misplaced(("objective", "budgets_of_dense", model), "no second budget beside budgets_ms", share)
        return self

    @property
    def farm(self) -> str | None:
        """The name of the shared farm that measures; None: one of the search's own."""
        return next((device.farm for device in self.devices if isinstance(device, FarmDevice)), None)

    @property
    def models(self) -> tuple[str, ...]:
        """Models of the devices, each once."""
        return tuple(dict.fromkeys(device.model for device in self.devices))

    @property
    def axes(self) -> tuple[str, ...]:
        """Of the front beside the accuracy, as an Objective has them; none where the best network is looked for."""
        if self.objective.mode == "best":
            return ()
        spread = ([latency_on(model) for model in self.models] if a == LATENCY else [a] for a in self.objective.axes)
        return tuple(axis for axes in spread for axis in axes)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives an equal configuration back."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_json(cls, data: Any, *, name: str = "configuration") -> SearchConfig:
        """Inverse of `to_json`. Raises ConfigError, a line for every problem, each beginning with `name`."""
        from npas_ray.config.validation import validated

        return validated(data, name=name)

    def identity(self) -> dict[str, Any]:
        """The part that decides results. Two searches with one identity are the same search.

        Not in it: the name, where and how wide it runs, which core measures, how patient it is with a device, how
        long the winner is trained, and how many candidates are wanted: asking for more of them continues a search.
        """
        data = self.to_json()
        for path in _NOT_IDENTITY:
            *sections, last = path.split(".")
            inner = data
            for section in sections:
                inner = inner[section]
            del inner[last]
        if self.measurement.admission == AdmissionConfig():  # as in journals from before there was a choice
            del data["measurement"]["admission"]
        data["devices"] = list(dict.fromkeys(device.identity for device in self.devices))
        return data

    @property
    def digest(self) -> str:
        """Short hash of the identity, equal on every machine."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]


_NOT_IDENTITY = (
    "name",
    "cluster",
    "compilation",
    "training.workers",
    "training.final_epochs",
    "search.candidates",
    "measurement.attempts",
    "measurement.deadline_s",
    "measurement.finalists",
)


def difference(a: SearchConfig, b: SearchConfig) -> list[str]:
    """What makes two searches different ones: a line such as "seed: 0 -> 1" for each setting; empty if nothing does."""
    before, after = _flat(a.identity()), _flat(b.identity())
    return [
        f"{path}: {json.dumps(before.get(path))} -> {json.dumps(after.get(path))}"
        for path in dict.fromkeys((*before, *after))
        if before.get(path) != after.get(path)
    ]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{path}.{key}" if path else key))
    return flat
