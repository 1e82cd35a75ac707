"""A long-lived Ray actor around fast evaluation: loads task and teacher once, then trains what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from safetensors.torch import load, save
from torch import Tensor

from device_farm.compiler.sparsity import TapUnit
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.module import Network, build_module, to_channels_last
from npas_ray.space.choices import Architecture
from npas_ray.training.data import digits_task
from npas_ray.training.fast_evaluation import DEFAULT_EPOCHS, Trained, evaluate, full_train
from npas_ray.training.teacher import Teacher, cached_teacher

_MASK = "mask/"  # prefix of masks among the tensors of a trained candidate


@dataclass(frozen=True)
class TeacherOf:
    """The teacher that another trainer, an actor of this name, keeps.

    It is asked for anew whenever a trainer is restarted, wherever that is: an object in Ray's store as an argument
    would be lost with the node that owns it, and the restart with it.
    """

    trainer: str

    def get(self, backbone: Backbone) -> Teacher:
        keeper: Any = ray.get_actor(self.trainer)
        return Teacher.from_bytes(ray.get(keeper.teacher_bytes.remote()), backbone)


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)
class Trainer:
    """Evaluates one candidate at a time on one core. Idempotent: the same call gives the same answer but for times."""

    def __init__(
        self,
        backbone: Backbone,
        teacher: str | TeacherOf,
        *,
        block_height: int,
        tap_unit: str = TapUnit.TAP,
        task: Mapping[str, Any],
    ) -> None:
        """`task` are the arguments of digits_task.

        `teacher` is another trainer's, or the directory where it is kept: then it is trained first, if that holds none
        of this backbone and task.
        """
        torch.set_num_threads(1)  # reproducible, and as many trainers as cores
        self._backbone = backbone
        self._block_height, self._tap_unit = block_height, TapUnit(tap_unit)
        self._task = digits_task(**task)
        if isinstance(teacher, TeacherOf):
            self._teacher = teacher.get(backbone)
        else:
            self._teacher = cached_teacher(Path(teacher), self._task, backbone)

    def teacher(self) -> dict[str, Any]:
        """Accuracy of the dense teacher on the validation set, and the seconds that it and its operators took."""
        return {"accuracy": self._teacher.accuracy, "wall_s": self._teacher.wall_s}

    def teacher_bytes(self) -> bytes:
        """The teacher for other trainers, wherever they are."""
        return self._teacher.to_bytes()

    def evaluate(self, architecture: list[str], *, epochs: int = DEFAULT_EPOCHS, seed: int = 0) -> dict[str, Any]:
        """Fast evaluation -> Evaluation.to_json(). Raises ValueError for what is no architecture of the backbone."""
        return self._trained(evaluate, architecture, epochs, seed).evaluation.to_json()

    def evaluate_with_weights(
        self, architecture: list[str], *, epochs: int = DEFAULT_EPOCHS, seed: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """The same evaluation and what it trained, see `pack`."""
        trained = self._trained(evaluate, architecture, epochs, seed)
        return trained.evaluation.to_json(), pack(trained)

    def full_train(self, architecture: list[str], *, epochs: int = 20, seed: int = 0) -> tuple[dict[str, Any], bytes]:
        """Training of what is shipped, with distillation -> Evaluation.to_json(), and what it trained, see `pack`."""
        trained = self._trained(full_train, architecture, epochs, seed)
        return trained.evaluation.to_json(), pack(trained)

    def _trained(self, train: Callable[..., Trained], architecture: list[str], epochs: int, seed: int) -> Trained:
        return train(
            Architecture.from_json(architecture),
            task=self._task,
            teacher=self._teacher,
            block_height=self._block_height,
            tap_unit=self._tap_unit,
            epochs=epochs,
            seed=seed,
        )


def pack(trained: Trained) -> bytes:
    """Weights and masks of a trained candidate as safetensors."""
    tensors = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    data: bytes = save(tensors | {_MASK + name: mask for name, mask in trained.masks.items()})
    return data


def unpack(data: bytes, backbone: Backbone, architecture: Architecture) -> tuple[Network, Mapping[str, Tensor]]:
    """Inverse of `pack`: the network in evaluation mode and its masks, as `deploy` takes them.

    Raises RuntimeError if the weights are those of another architecture.
    """
    tensors = load(data)
    network = build_module(backbone, architecture)
    network.load_state_dict({name: value for name, value in tensors.items() if not name.startswith(_MASK)})
    masks = {name.removeprefix(_MASK): value for name, value in tensors.items() if name.startswith(_MASK)}
    to_channels_last(network)
    return network.eval(), masks
