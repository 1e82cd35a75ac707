"""A calibration by the real compiler on this machine, without Ray: measured, concluded, written, read, asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from device_farm.calibration.collecting import collect
from device_farm.calibration.file import read_calibration, write_calibration
from device_farm.calibration.journal import Record, open_journal
from device_farm.compiler import compile_network, host_target
from device_farm.compiler.graph import Graph
from device_farm.errors import CalibrationError
from device_farm.measurement.session import Meter
from device_farm.measurement.types import Measurement, Protocol
from device_farm.transport.local import LocalTransport
from npas_ray.calibration.design import design
from npas_ray.calibration.run import case_of, conclude, observation_of
from npas_ray.calibration.store import identity_of, predictors
from npas_ray.config import SearchConfig
from npas_ray.networks.lowering import lower
from npas_ray.runs.setting import backbone_of, block_height_of, make_space

CONFIG = SearchConfig.from_json(
    {"name": "t", "space": {"operators": ["3x3", "skip"], "schemes": ["block-punched"], "rates": [1, 5]}}
)
QUICK = Protocol(warmup_s=0.001, min_time_s=0.005, max_time_s=0.02, max_relative_ci=1e9, attempts=1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Record]:
    folder = tmp_path_factory.mktemp("calibration")
    meter = Meter(LocalTransport(folder / "device"))

    def submit(graph: Graph, seed: int) -> Callable[[], Measurement]:
        artifact = compile_network(
            graph, target=host_target(), out_dir=folder / "out", cache_dir=folder / "cache", seed=seed
        )
        return lambda: meter.measure(artifact, QUICK)

    cases = [case_of(CONFIG, architecture) for architecture in design(make_space(CONFIG), 6, seed=0)]
    with open_journal(folder / "journal", identity_of(CONFIG, "local")) as journal:
        collect(cases, submit, journal, at_once=lambda: 1, attempts=1)
        return dict(journal.records)


def test_from_measurements_to_predictions(measured: dict[tuple[str, ...], Record], tmp_path: Path) -> None:
    space = make_space(CONFIG)
    candidates = design(space, 6, seed=0)
    outcome = conclude(CONFIG, identity_of(CONFIG, "local"), candidates, measured, path=tmp_path / "c.json")
    assert len(outcome.calibration.networks) == outcome.wanted == 6
    pruned = sum(str(choice) not in ("3x3", "skip") for layer in range(7) for choice in space.choices(layer))
    assert len(outcome.calibration.points) == pruned
    for words in ("device      local", "measured    6 of 6", "predictor", "break-even", str(tmp_path / "c.json")):
        assert words in str(outcome)

    write_calibration(tmp_path / "c.json", outcome.calibration)
    by_model = predictors(CONFIG, {"local": read_calibration(tmp_path / "c.json")})
    answer = by_model.by_model["local"].predict([*candidates, *list(space.neighbours(candidates[0]))[:20]])
    assert (answer.low_ms < answer.mean_ms).all()
    assert (answer.mean_ms > 0).all()
    # nothing of how fast it is, but of which is faster
    slow, fast = (by_model([space.parse([text] * 7)])["local"][0] for text in ("3x3", "3x3/block-punched@5"))
    assert slow > fast


def test_a_failed_candidate_is_named_and_left_out(measured: dict[tuple[str, ...], Record], tmp_path: Path) -> None:
    candidates = design(make_space(CONFIG), 6, seed=0)
    label = tuple(candidates[2].to_json())
    records = {**measured, label: Record(label=label, attempt=2, failure="WrongAnswer: output 3 is 7")}
    outcome = conclude(CONFIG, identity_of(CONFIG, "local"), candidates, records, path=tmp_path / "c.json")
    assert len(outcome.calibration.networks) == 5
    assert f"{' '.join(label)}: WrongAnswer" in str(outcome)
    assert outcome.to_json()["candidates"] == {"wanted": 6, "measured": 5, "failed": 1}


def test_a_profile_of_something_else_is_refused(measured: dict[tuple[str, ...], Record]) -> None:
    first, second = design(make_space(CONFIG), 6, seed=0)[:2]
    graph = lower(backbone_of(CONFIG), first, block_height=block_height_of(CONFIG))
    with pytest.raises(CalibrationError, match="other steps than its plan"):
        observation_of(graph, measured[tuple(second.to_json())], host_target())
