"""A farm's compiler that takes half a second and no TVM: tiny_plan.c under names that say what is wrong with it.

FarmConfig(compile_with="device_farm.testing.tiny_farm:compile_tiny")
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.graph import Activate, Graph, Input, Shape
from device_farm.compiler.target import Target
from device_farm.testing.tiny import tiny_artifact

_MARK = "tiny"


def tiny_network(number: int, *defines: str, repeats: int = 50, wrong: bool = False) -> Graph:
    """A network of its own for each `number`. `defines` are faults of tiny_plan.c; `wrong` expects another answer."""
    says = {_MARK: number, "defines": [f"REPEATS={repeats}", *defines], "wrong": wrong}
    return Graph((Input("image", (), Shape(8, 8, 3)), Activate(json.dumps(says), ("image",))))


def compile_tiny(
    graph: Graph,
    *,
    target: Target,
    out_dir: Path,
    cache_dir: Path,
    weights: Mapping[str, Any] | None = None,
    seed: int = 0,
    threads: int = 1,
) -> Artifact:
    """Stands for compile_network. A network that is none of ours, as a sentinel, becomes one that is well."""
    try:
        says = json.loads(graph.output.name)
    except ValueError:
        says = {_MARK: 0, "defines": ["REPEATS=500"], "wrong": False}
    artifact = tiny_artifact(out_dir, target, defines=says["defines"], seed=1000 + says[_MARK])
    if says["wrong"]:
        answer = tuple(-value for value in artifact.expected_output)
        return dataclasses.replace(artifact, expected_output=answer)
    return artifact
