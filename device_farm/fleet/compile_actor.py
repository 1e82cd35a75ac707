"""The actor that compiles: a graph in, an artifact and its executable's bytes out."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.compiler.sweeping import scratch
from device_farm.compiler.target import Target
from device_farm.errors import FarmError
from device_farm.fleet.config import imported
from device_farm.fleet.device_actor import Greeting

if TYPE_CHECKING:
    from device_farm.compiler.artifact import Artifact
    from device_farm.compiler.graph import Graph


class CompileActor:
    """Made a Ray actor by the broker, many on a node; they share its kernel cache."""

    def __init__(self, cache_dir: Path, compile_with: str) -> None:
        self._cache_dir = cache_dir
        self._compile_with = compile_with
        self._instance = uuid.uuid4().hex

    def hello(self) -> Greeting:
        """Loads the compiler, so that the first job does not pay for it."""
        imported(self._compile_with)
        return Greeting(self._instance, os.getpid())

    def watch(self) -> None:
        """Never returns; its caller learns at once when this process is gone."""
        threading.Event().wait()

    def compile(
        self, graph: Graph, target: Target, weights: Mapping[str, Any] | None, seed: int
    ) -> tuple[Artifact | FarmError, bytes]:
        """Artifact and executable. The artifact's path is gone when this returns: the bytes are what travels."""
        try:
            out_root = self._cache_dir / "out"
            out_root.mkdir(parents=True, exist_ok=True)
            with scratch(out_root, ".compiling-") as out_dir:
                artifact: Artifact = imported(self._compile_with)(
                    graph, target=target, out_dir=out_dir, cache_dir=self._cache_dir, weights=weights, seed=seed
                )
                return artifact, artifact.path.read_bytes()
        except FarmError as error:
            return error, b""
