"""One training loop for teacher, fast evaluation and full training. Made for small networks on one core.

Tensors are indexed, no DataLoader; channels last; one fused AdamW; the learning rate is set by hand. With one torch
thread (`torch.set_num_threads(1)`) the result is the same bits for the same seed on the same machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from npas_ray.networks.module import to_channels_last
from npas_ray.training.data import Dataset

EVALUATION_BATCH = 250  # activations of more images fall out of the cache

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits [n, classes], labels [n], indices of the images [n] -> mean


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. The rate rises linearly over `warmup` of all steps, then falls to zero as a cosine."""

    epochs: int
    learning_rate: float = 1e-2
    batch: int = 32
    warmup: float = 0.2
    weight_decay: float = 1e-2

    def rate(self, progress: float) -> float:
        """Learning rate at a fraction 0..1 of all steps."""
        if progress < self.warmup:
            return self.learning_rate * (0.1 + 0.9 * progress / self.warmup)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (progress - self.warmup) / (1.0 - self.warmup)))


@dataclass(frozen=True)
class Fit:
    """What a training did."""

    epochs_run: int
    train_loss: float  # mean of the last epoch; NaN if none was run
    wall_s: float


def cross_entropy(logits: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels)


def fit(
    network: nn.Module,
    data: Dataset,
    schedule: Schedule,
    *,
    seed: int,
    loss: Loss = cross_entropy,
    after_step: Callable[[], None] | None = None,
    stop_after_epoch: Callable[[int], bool] | None = None,
) -> Fit:
    """Trains in place; leaves the network in training mode.

    `after_step` runs behind every step of the optimiser (masks are enforced there). `stop_after_epoch` is asked with
    the number of epochs done, not after the last one, and ends the training with True.
    """
    started = time.perf_counter()
    to_channels_last(network)
    network.train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    steps_per_epoch = max(1, len(data) // schedule.batch)
    steps, mean_loss, epoch = 0, math.nan, 0
    for epoch in range(1, schedule.epochs + 1):
        order = torch.randperm(len(data), generator=generator)
        total = torch.zeros(())
        for indices in torch.split(order[: steps_per_epoch * schedule.batch], schedule.batch):
            optimizer.param_groups[0]["lr"] = schedule.rate(steps / (steps_per_epoch * schedule.epochs))
            optimizer.zero_grad()
            value = loss(network(data.images[indices]), data.labels[indices], indices)
            value.backward()
            optimizer.step()
            if after_step is not None:
                after_step()
            total += value.detach()
            steps += 1
        mean_loss = float(total) / steps_per_epoch
        if epoch < schedule.epochs and stop_after_epoch is not None and stop_after_epoch(epoch):
            break
    return Fit(epoch, mean_loss, time.perf_counter() - started)


@torch.no_grad()
def logits(network: nn.Module, images: Tensor) -> Tensor:
    """Logits [n, classes] of images [n, channels, h, w] in evaluation mode; the mode is put back."""
    training = network.training
    network.eval()
    out = torch.cat([network(batch) for batch in torch.split(images, EVALUATION_BATCH)])
    network.train(training)
    return out


def accuracy(network: nn.Module, data: Dataset) -> float:
    """Fraction of the images that the network labels rightly."""
    return float((logits(network, data.images).argmax(1) == data.labels).double().mean())


@torch.no_grad()
def recalibrate(network: nn.Module, images: Tensor, *, batch: int = EVALUATION_BATCH) -> None:
    """Replaces the running statistics of every batch norm by those of the images; weights stay, the mode is put back.

    Pruning shifts what the layers behind see; without this a pruned network answers at chance.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average over the batches
    training = network.training
    network.train()
    for part in torch.split(images, batch):
        network(part)
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
