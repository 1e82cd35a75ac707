from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from device_farm.calibration.file import Calibration, write_calibration
from npas_ray.calibration.store import calibrations_of, default_path, identity_of
from npas_ray.config import SearchConfig
from npas_ray.errors import CalibrationUnusable

Invent = Callable[..., Calibration]


def test_a_current_file_is_taken_by_name_and_by_itself(small: SearchConfig, invent: Invent, tmp_path: Path) -> None:
    calibration = invent(small)
    path = default_path(tmp_path, calibration.identity)
    assert calibrations_of(small, "auto", folder=tmp_path) == {}
    write_calibration(path, calibration)
    assert list(calibrations_of(small, "auto", folder=tmp_path)) == ["local"]
    assert list(calibrations_of(small, str(path), folder=tmp_path / "elsewhere")) == ["local"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compiler": "0" * 64}, "compiler '000000000000' instead of '"),
        ({"target": "aarch64-neon"}, "target 'aarch64-neon' instead of"),
    ],
)
def test_a_stale_file_says_what_and_what_to_do(
    small: SearchConfig, invent: Invent, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    calibration = invent(small)
    path = tmp_path / "old.json"
    write_calibration(path, replace(calibration, identity=replace(calibration.identity, **changes)))
    with pytest.raises(CalibrationUnusable) as caught:
        calibrations_of(small, str(path), folder=tmp_path)
    assert said in str(caught.value)
    assert f"npas calibrate CONFIG --out {path}" in str(caught.value)


def test_a_file_of_another_device_frame_or_block_height(small: SearchConfig, invent: Invent, tmp_path: Path) -> None:
    calibration = invent(small)
    path = tmp_path / "other.json"
    frame = {**calibration.identity.space["backbone"], "expansion": 9}
    for changes, said in (
        ({"device_model": "pixel"}, "of device model 'pixel', and the search has local"),
        ({"space": {**calibration.identity.space, "backbone": frame}}, "another backbone"),
        ({"space": {**calibration.identity.space, "block_height": 3}}, "another block height"),
        ({"space": None}, "another backbone, another block height"),
    ):
        write_calibration(path, replace(calibration, identity=replace(calibration.identity, **changes)))
        with pytest.raises(CalibrationUnusable, match=said):
            calibrations_of(small, str(path), folder=tmp_path)


def test_auto_passes_over_what_is_stale_or_damaged(small: SearchConfig, invent: Invent, tmp_path: Path) -> None:
    calibration = invent(small)
    path = default_path(tmp_path, calibration.identity)
    write_calibration(path, replace(calibration, identity=replace(calibration.identity, compiler="old")))
    assert calibrations_of(small, "auto", folder=tmp_path) == {}
    path.write_text("{")
    assert calibrations_of(small, "auto", folder=tmp_path) == {}


def test_missing_and_damaged_files_are_the_users_error(small: SearchConfig, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[]")
    for name, said in (("nothing.json", "cannot be read"), ("bad.json", "not a calibration")):
        with pytest.raises(CalibrationUnusable, match=said):
            calibrations_of(small, str(tmp_path / name), folder=tmp_path)


def test_another_space_or_protocol_lies_elsewhere(small: SearchConfig, tmp_path: Path) -> None:
    data = small.to_json()
    others = [
        SearchConfig.from_json({**data, "space": {**data["space"], "rates": [1, 3]}}),
        SearchConfig.from_json({**data, "measurement": {"min_time_s": 0.5}}),
    ]
    paths = {default_path(tmp_path, identity_of(config, "local")) for config in (small, *others)}
    assert len(paths) == 3
    # what a search does with its space does not make another space of it
    same = SearchConfig.from_json({**data, "name": "other", "seed": 4, "space": {**data["space"], "breakeven": "auto"}})
    assert default_path(tmp_path, identity_of(same, "local")) in paths
