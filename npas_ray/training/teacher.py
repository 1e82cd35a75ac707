"""The pre-trained network, and weights of every operator of every block made from it.

The dense teacher (3x3 everywhere) is trained once. Each block's other operators are then fitted to the teacher's block
alone: given the features that enter it, make those that leave it (npas: "layer-wise reconstruction"). A candidate
inherits, block by block, the weights of the operator that it chose.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from device_farm.files import write_atomically
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.module import BlockModule, Network, block_prefix, build_module, to_channels_last
from npas_ray.networks.operators import BLOCK_OPERATORS, dense_architecture
from npas_ray.space.choices import Architecture, Operator
from npas_ray.training.data import Dataset, Task
from npas_ray.training.optimise import EVALUATION_BATCH, Schedule, accuracy, fit

TEACHER_OPERATOR = Operator.CONV3X3
WEIGHTS_FILE, SETTINGS_FILE = "teacher.safetensors", "teacher.json"


@dataclass(frozen=True)
class TeacherSettings:
    """How teacher and operators are made. Part of the cache's identity, with backbone and task."""

    schedule: Schedule = field(default_factory=lambda: Schedule(epochs=15, batch=64))
    operator_steps: int = 120  # of the regression of one operator
    operator_batch: int = 32
    operator_learning_rate: float = 3e-2
    seed: int = 0


@dataclass(frozen=True)
class Teacher:
    """Weights that candidates inherit.

    `tensors`: "stem.*" and "fc.*" as in a Network's state, and "<block>/<operator>/<sub-layer>.*" for every block and
    operator.
    """

    backbone: Backbone
    accuracy: float  # of the dense teacher on the validation set
    wall_s: float  # that teacher and operators took
    tensors: Mapping[str, Tensor]

    def inherit(self, architecture: Architecture) -> Network:
        """A dense Network of the architecture with inherited weights; the teacher's tensors are copied."""
        network = build_module(self.backbone, architecture)
        state = {name: value for name, value in self.tensors.items() if name.startswith(("stem.", "fc."))}
        for block, choice in zip(self.backbone.blocks, architecture.layers, strict=False):
            source = f"{block.name}/{choice.operator.value}/"
            for name, value in self.tensors.items():
                if name.startswith(source):
                    state[block_prefix(block) + name.removeprefix(source)] = value
        network.load_state_dict(state)
        return network

    def network(self) -> Network:
        """The dense teacher itself."""
        return self.inherit(dense_architecture(self.backbone))

    def to_bytes(self) -> bytes:
        """Safetensors with accuracy and time in the metadata."""
        data: bytes = save(dict(self.tensors), {"accuracy": repr(self.accuracy), "wall_s": repr(self.wall_s)})
        return data

    @classmethod
    def from_bytes(cls, data: bytes, backbone: Backbone) -> Teacher:
        """Inverse of `to_bytes`. Raises ValueError on anything else."""
        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            metadata = header["__metadata__"]
            return cls(backbone, float(metadata["accuracy"]), float(metadata["wall_s"]), load(data))
        except Exception as error:  # safetensors has no public base for what it raises on garbage
            raise ValueError(f"not a teacher's weights ({len(data)} bytes): {error}") from error


def train_teacher(task: Task, backbone: Backbone, settings: TeacherSettings | None = None) -> Teacher:
    """The teacher and every operator, from scratch. The same seed gives the same weights with one torch thread."""
    settings = settings or TeacherSettings()
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = build_module(backbone, dense_architecture(backbone))
        fit(network, task.train, settings.schedule, seed=settings.seed)
        validation_accuracy = accuracy(network, task.validation)
        tensors = {name: value for name, value in network.state_dict().items() if name.startswith(("stem.", "fc."))}
        tensors |= _operators(network, backbone, task.train, settings)
    tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    return Teacher(backbone, validation_accuracy, time.perf_counter() - started, tensors)


def _operators(network: Network, backbone: Backbone, data: Dataset, settings: TeacherSettings) -> dict[str, Tensor]:
    """Weights of every operator of every block, by name as in Teacher.tensors."""
    network.eval()
    tensors: dict[str, Tensor] = {}
    with torch.no_grad():
        features = torch.cat([network.stem(part) for part in torch.split(data.images, EVALUATION_BATCH)])
    features = features.contiguous(memory_format=torch.channels_last)
    for block in backbone.blocks:
        original = network.blocks.get_submodule(block.name)
        with torch.no_grad():
            wanted = torch.cat([original(part) for part in torch.split(features, EVALUATION_BATCH)])
        for operator in BLOCK_OPERATORS:
            if operator is Operator.SKIP:
                continue
            module = original
            if operator is not TEACHER_OPERATOR:
                module = BlockModule(block, operator)
                _reconstruct(module, features, wanted, settings)
            assert isinstance(module, BlockModule)
            for name, value in module.body.state_dict().items():
                tensors[f"{block.name}/{operator.value}/{name}"] = value
        features = wanted.contiguous(memory_format=torch.channels_last)
    return tensors


def _reconstruct(module: BlockModule, features: Tensor, wanted: Tensor, settings: TeacherSettings) -> None:
    """Fits a block to map features [n, in, h, w] to wanted [n, out, h', w']; each output channel counts alike."""
    to_channels_last(module)
    module.train()
    weight = 1.0 / wanted.var((0, 2, 3), keepdim=True).clamp_min(1e-4).sqrt()
    schedule = Schedule(epochs=1, learning_rate=settings.operator_learning_rate)
    optimizer = torch.optim.AdamW(module.parameters(), lr=schedule.learning_rate, weight_decay=0.0, fused=True)
    for step in range(settings.operator_steps):
        optimizer.param_groups[0]["lr"] = schedule.rate(step / settings.operator_steps)
        optimizer.zero_grad()
        indices = torch.randint(len(features), (settings.operator_batch,))
        loss = functional.mse_loss(module(features[indices]) * weight, wanted[indices] * weight)
        loss.backward()
        optimizer.step()


def cached_teacher(directory: Path, task: Task, backbone: Backbone, settings: TeacherSettings | None = None) -> Teacher:
    """The teacher in `directory`, trained and kept there if there is none of these settings, task and backbone.

    Both files are replaced atomically, the settings last: what they describe is complete. Damaged or foreign files are
    replaced, not trusted.
    """
    settings = settings or TeacherSettings()
    weights_path, settings_path = directory / WEIGHTS_FILE, directory / SETTINGS_FILE
    identity = {
        "task": {"name": task.name, "seed": task.seed, "train_images": len(task.train)},
        "backbone": dataclasses.asdict(backbone),
        "settings": dataclasses.asdict(settings),
    }
    try:
        kept: Any = json.loads(settings_path.read_text())
        data = weights_path.read_bytes()
        if kept["identity"] == json.loads(json.dumps(identity)) and kept["sha256"] == _sha256(data):
            return Teacher.from_bytes(data, backbone)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    teacher = train_teacher(task, backbone, settings)
    data = teacher.to_bytes()
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(weights_path, data, durable=True)
    facts = {
        "accuracy": teacher.accuracy,
        "wall_s": teacher.wall_s,
        "sha256": _sha256(data),
        "identity": identity,
    }
    write_atomically(settings_path, json.dumps(facts, indent=2).encode(), durable=True)
    return teacher


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
