"""What lies in best/: names of its files, reading and writing them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npas_ray.errors import RunError
from npas_ray.networks.backbone import BACKBONES, Backbone
from npas_ray.space.choices import Architecture

if TYPE_CHECKING:
    from npas_ray.networks.module import Network
    from npas_ray.training.data import Task

SUMMARY, ARCHITECTURE, WEIGHTS = "summary.json", "architecture.json", "weights.safetensors"
ARTIFACT, MEASUREMENT = "network", "measurement.json"  # in a folder for each device model
REPLICATES = "replicates.json"  # there, too: the latency of all sessions and phones, and those


@dataclass(frozen=True)
class Shipped:
    """A shipped network: `best/` of a run."""

    path: Path

    @property
    def summary(self) -> Mapping[str, Any]:
        """Accuracies and latencies of what was shipped. Raises RunError."""
        return self._json(SUMMARY)

    def task(self) -> Task:
        """The data that it was trained and is tested on. Raises RunError."""
        from npas_ray.training.data import digits_task

        try:
            data = self._json(ARCHITECTURE)["task"]
            return digits_task(int(data["seed"]), train_images=int(data["train_images"]))
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.path / ARCHITECTURE} is damaged: no task ({error})") from error

    @property
    def models(self) -> list[str]:
        """Device models with an artifact."""
        return sorted(entry.parent.name for entry in self.path.glob(f"*/{ARTIFACT}"))

    def artifact(self, model: str) -> Path:
        return self.path / model / ARTIFACT

    def architecture(self) -> tuple[Backbone, Architecture]:
        """Raises RunError."""
        data = self._json(ARCHITECTURE)
        try:
            return BACKBONES[data["backbone"]], Architecture.from_json(data["layers"])
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.path / ARCHITECTURE} is damaged: {error}") from error

    def network(self) -> Network:
        """The shipped network in torch, in evaluation mode. Raises RunError: weights missing, damaged or of another."""
        from npas_ray.training.trainer_actor import unpack

        path = self.path / WEIGHTS
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RunError(
                f"cannot read the weights {path}: {error.strerror}; remove {self.path} and resume: it ships anew"
            ) from error
        try:
            return unpack(data, *self.architecture())[0]
        except RunError:
            raise
        except Exception as error:  # safetensors has no public base for what it raises on garbage
            reason = str(error).splitlines()[0]
            raise RunError(f"{path} does not hold the weights of {ARCHITECTURE}: {reason}") from error

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error
        if not isinstance(data, dict):
            raise RunError(f"{path} is damaged: expected an object, got {type(data).__name__}")
        return data


def replace_directory(old: Path, *, new: Path) -> None:
    """`old` becomes `new`. A crash in between leaves one of them aside, and shipping again repairs it."""
    aside = old.with_name(f"{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)
