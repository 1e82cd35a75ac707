"""Artifacts are really built and really run here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_farm.compiler import Artifact, Graph, Target, compile_network
from device_farm.compiler.seeded import INPUT_STREAM, uniform
from device_farm.compiler.testing import Answer, Check, native_targets, run_artifact


@pytest.fixture(params=native_targets(), ids=lambda target: target.name)
def native(request: pytest.FixtureRequest) -> Target:
    """Every target that this machine can run."""
    target: Target = request.param
    return target


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    """Runs an artifact over images [n, ...] and returns its flat outputs [n, outputs]."""
    return lambda artifact, images: run_artifact(artifact, images, scratch=tmp_path)


@pytest.fixture
def check(tmp_path: Path, cache_dir: Path, answer: Answer) -> Check:
    """Compiles, runs on the seeded input, compares with the host's reference; returns the artifact."""

    def run(
        graph: Graph, *, target: Target, weights: Mapping[str, NDArray[Any]] | None = None, seed: int = 1
    ) -> Artifact:
        artifact = compile_network(
            graph, target=target, out_dir=tmp_path / "out", cache_dir=cache_dir, weights=weights, seed=seed
        )
        image = uniform(artifact.input_seed, INPUT_STREAM, graph.input.shape.elements)
        expected = np.array(artifact.expected_output)
        # Twice the same image: the second run meets the memory that the first one left.
        for got in answer(artifact, np.stack([image, image])):
            error = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-6)
            assert error < (2e-5 if target.element == "float32" else 5e-3), f"{graph.to_json()} on {target.name}"
        return artifact

    return run
