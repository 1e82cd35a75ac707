"""Where calibrations lie, what they are of, and whether one still holds for a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from device_farm.calibration.file import Calibration, Identity, read_calibration
from device_farm.compiler import host_target
from device_farm.compiler.version import compiler_version, digest
from device_farm.errors import CalibrationError
from npas_ray.calibration.pieces import Pieces
from npas_ray.calibration.prediction import CandidatePredictor, ModelPredictors
from npas_ray.config import SearchConfig
from npas_ray.errors import CalibrationUnusable
from npas_ray.networks.backbone import Backbone
from npas_ray.runs.setting import backbone_of, block_height_of, make_space
from npas_ray.space.search_space import SearchSpace

#: the word in a configuration for "whatever `npas calibrate` left in its default place"
AUTO = "auto"


def identity_of(config: SearchConfig, model: str) -> Identity:
    """What a calibration for this configuration on a device model has to be of."""
    return Identity(
        compiler=compiler_version(),
        target=host_target().name,
        device_model=model,
        protocol=config.measurement.protocol().key,
        space=space_to_json(make_space(config), block_height_of(config)),
    )


def space_to_json(space: SearchSpace, block_height: int) -> dict[str, Any]:
    """Frame and choices."""
    return {
        "backbone": _frame(space.backbone),
        "block_height": block_height,
        "layers": {name: [str(c) for c in space.choices(i)] for i, name in enumerate(space.layer_names)},
    }


def _frame(backbone: Backbone) -> dict[str, Any]:
    return {**asdict(backbone), "blocks": [asdict(block) for block in backbone.blocks]}


def default_path(folder: Path, identity: Identity) -> Path:
    """Equal for equal identities, so that a calibration in its default place is never a stale one."""
    parts = [identity.compiler, identity.target, identity.device_model, identity.protocol, repr(identity.space)]
    return folder / f"{identity.device_model}-{identity.space['backbone']['name']}-{digest(parts)[:12]}.json"


def calibrations_of(config: SearchConfig, wanted: str, *, folder: Path) -> dict[str, Calibration]:
    """By device model of the search: from a file, or with "auto" from the default place, whatever is there.

    Raises CalibrationUnusable, with what to do, if a named file cannot be used. "auto" gives what there is.
    """
    if wanted != AUTO:
        path = Path(wanted).expanduser()
        try:
            calibration = read_calibration(path)
        except CalibrationError as error:
            raise CalibrationUnusable(str(error)) from error
        model = calibration.identity.device_model
        if model not in config.models:
            raise CalibrationUnusable(
                f"{path} is of device model {model!r}, and the search has {', '.join(config.models)}; {_make(path)}"
            )
        require_current(calibration, identity_of(config, model), path)
        return {model: calibration}
    found = {}
    for model in config.models:
        identity = identity_of(config, model)
        try:
            calibration = read_calibration(default_path(folder, identity))
            require_current(calibration, identity, default_path(folder, identity))
        except (CalibrationError, CalibrationUnusable):
            continue
        found[model] = calibration
    return found


def require_current(calibration: Calibration, identity: Identity, path: Path) -> None:
    """Raises CalibrationUnusable if it was taken with another compiler, on another target, or of another frame.

    Another protocol takes the same latencies another way, and other choices are only not known of: neither is stale.
    """
    problems = identity.differences(calibration.identity)
    theirs = calibration.identity.space
    for part in ("backbone", "block_height"):
        if not isinstance(theirs, Mapping) or theirs.get(part) != identity.space[part]:
            problems.append(f"another {part.replace('_', ' ')}")
    if problems:
        raise CalibrationUnusable(f"{path} does not hold here: it is of {', '.join(problems)}; {_make(path)}")


def _make(path: Path) -> str:
    return f"make it anew with `npas calibrate CONFIG --out {path}`, or leave it out of the configuration"


def predictors(config: SearchConfig, calibrations: Mapping[str, Calibration]) -> ModelPredictors:
    """What the calibrations predict of the candidates of this search. Raises CalibrationError (too few networks)."""
    pieces = Pieces(backbone_of(config), host_target(), block_height_of(config))
    return ModelPredictors({m: CandidatePredictor(pieces, c.predictor()) for m, c in calibrations.items()})
