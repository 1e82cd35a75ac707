"""How good a candidate is, in a second or two (npas: fast evaluation): inherit, prune, recalibrate, train briefly."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from device_farm.compiler.sparsity import TapUnit
from npas_ray.networks.compacting import Compacted
from npas_ray.networks.lowering import Blocks
from npas_ray.networks.masking import network_masks
from npas_ray.networks.module import Network, to_channels_last
from npas_ray.pruning.one_shot import MaskedParameters
from npas_ray.space.choices import Architecture
from npas_ray.training.data import Dataset, Task
from npas_ray.training.optimise import (
    EVALUATION_BATCH,
    Loss,
    Schedule,
    accuracy,
    cross_entropy,
    fit,
    logits,
    recalibrate,
)
from npas_ray.training.teacher import Teacher

RECALIBRATION_IMAGES = 500
DEFAULT_EPOCHS = 2


@dataclass(frozen=True)
class EarlyStop:
    """When the rest of the epochs would be wasted (npas). Looked at between epochs, on `images` validation images."""

    hopeless: float = 1.5  # times chance: what is below after an epoch is not trained on
    patience: int = 3  # epochs without a new best
    images: int = 250

    def rule(self, network: Network, data: Dataset) -> _Stopper:
        return _Stopper(self, network, Dataset(data.images[: self.images], data.labels[: self.images]))


class _Stopper:
    def __init__(self, settings: EarlyStop, network: Network, data: Dataset) -> None:
        self._settings, self._network, self._data = settings, network, data
        self._best, self._best_epoch = 0.0, 0
        self.stopped = False

    def __call__(self, epoch: int) -> bool:
        value = accuracy(self._network, self._data)
        if value > self._best:
            self._best, self._best_epoch = value, epoch
        chance = 1.0 / self._network.fc.out_features
        hopeless = value < self._settings.hopeless * chance
        self.stopped = hopeless or epoch - self._best_epoch >= self._settings.patience
        return self.stopped


@dataclass(frozen=True)
class Evaluation:
    """What a training found. All but the times is the same for the same seed."""

    accuracy: float  # fraction of the validation images
    epochs: int  # that were asked for: the rung of a ladder
    epochs_run: int
    stopped_early: bool
    train_loss: float | None  # mean of the last epoch; None without epochs
    kept_rate: float  # weights kept / weights, over the masked parameters' convolutions and FC; 1 where nothing is cut
    seed: int
    wall_s: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Trained:
    """A network under its masks, and what is known of it."""

    network: Network  # in evaluation mode
    masks: Mapping[str, Tensor]
    evaluation: Evaluation


def evaluate(
    architecture: Architecture,
    *,
    task: Task,
    teacher: Teacher,
    block_height: int,
    tap_unit: TapUnit = TapUnit.TAP,
    epochs: int = DEFAULT_EPOCHS,
    seed: int = 0,
    early_stop: EarlyStop | None = EarlyStop(),
) -> Trained:
    """Fast evaluation of a candidate. Raises ValueError where the architecture does not fit the teacher's backbone."""
    schedule = Schedule(epochs=epochs)
    return _train(
        architecture, task, teacher, Blocks(block_height, tap_unit), schedule, seed, cross_entropy, early_stop
    )


def full_train(
    architecture: Architecture,
    *,
    task: Task,
    teacher: Teacher,
    block_height: int,
    tap_unit: TapUnit = TapUnit.TAP,
    epochs: int = 20,
    seed: int = 0,
    distillation: float = 0.9,
    temperature: float = 2.0,
) -> Trained:
    """The training of what is shipped: more epochs, taught by labels and by the teacher's answers.

    `distillation` is the share of the teacher in the loss, 0..1; `temperature` softens both answers.
    """
    answers = (logits(teacher.network(), task.train.images) / temperature).softmax(1) if distillation else None

    def loss(out: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        hard = functional.cross_entropy(out, labels)
        if answers is None:
            return hard
        soft = functional.cross_entropy(out / temperature, answers[indices]) * temperature**2
        return (1.0 - distillation) * hard + distillation * soft

    schedule = Schedule(epochs=epochs)
    return _train(architecture, task, teacher, Blocks(block_height, tap_unit), schedule, seed, loss, None)


def _train(
    architecture: Architecture,
    task: Task,
    teacher: Teacher,
    blocks: Blocks,
    schedule: Schedule,
    seed: int,
    loss: Loss,
    early_stop: EarlyStop | None,
) -> Trained:
    started = time.perf_counter()
    network = teacher.inherit(architecture)
    masks = network_masks(network, teacher.backbone, architecture, block_height=blocks.height, tap_unit=blocks.unit)
    MaskedParameters(network.named_parameters(), masks)
    compacted = Compacted(network, teacher.backbone, architecture, masks)
    masked = MaskedParameters(
        network.named_parameters(), {name: mask for name, mask in masks.items() if name not in compacted.free}
    )
    to_channels_last(network)
    recalibrate(network, task.train.images[:RECALIBRATION_IMAGES], batch=EVALUATION_BATCH)
    stopper = early_stop.rule(network, task.validation) if early_stop else None
    result = fit(
        network,
        task.train,
        schedule,
        seed=seed,
        loss=loss,
        after_step=masked.enforce if masks else None,
        stop_after_epoch=stopper,
    )
    network.eval()
    validation_accuracy = accuracy(network, task.validation)
    compacted.restore()
    evaluation = Evaluation(
        accuracy=validation_accuracy,
        epochs=schedule.epochs,
        epochs_run=result.epochs_run,
        stopped_early=stopper is not None and stopper.stopped,
        train_loss=result.train_loss if result.epochs_run else None,
        kept_rate=kept_rate(network, masks),
        seed=seed,
        wall_s=time.perf_counter() - started,
    )
    return Trained(network, masks, evaluation)


def kept_rate(network: Network, masks: Mapping[str, Tensor]) -> float:
    """Fraction of the weights of all convolutions and of the FC layer that the masks keep."""
    weights = {name: p.numel() for name, p in network.named_parameters() if p.dim() > 1}
    kept = sum(int(masks[name].sum()) if name in masks else count for name, count in weights.items())
    return kept / sum(weights.values())
