from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from npas_ray.config import SearchConfig
from npas_ray.journal import Journal
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import DENSE
from npas_ray.testing.earlier_runs import dense_ms, make_earlier_run


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built")
    make_earlier_run(path)
    return path


@pytest.fixture
def other(built: Path, tmp_path: Path) -> Path:
    """The run of `make_earlier_run`, which may be damaged."""
    return Path(shutil.copytree(built, tmp_path / "other"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """A new run's directory, whose journal knows the dense network."""

    def make(config: SearchConfig, dense: dict[str, Any] | None = None) -> RunDirectory:
        found = RunDirectory.prepare(tmp_path / "new", config=config.to_json(), resume=False)
        with Journal.open(found.journal) as journal:
            journal.note(DENSE, {"model": "local", "measurement": dense or dense_ms()})
        return found

    return make
