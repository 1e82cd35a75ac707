"""The embedded task: handwritten digits, made hard enough to tell candidates apart.

Plain 8x8 digits saturate: every network reads 98 % of them. Here each image is a digit under a random affine map
(rotation, scale, shear, shift) at 16x16, a fragment of another digit as clutter, noise, and for every second image
inverted. The three sets are made from disjoint original digits, so nothing that was trained on is met again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SIZE = 16  # pixels of an image's side
TRAIN_IMAGES, VALIDATION_IMAGES, TEST_IMAGES = 2000, 1000, 2000

_ORIGINALS = {"train": 0.6, "validation": 0.2}  # shares of the original digits; the rest is the test set
# Chosen so that the dense teacher reads 94 %: harder leaves no room to be good in, easier none to be bad in.
_MAX_ROTATION = math.radians(20)
_SCALE = (0.85, 1.1)
_MAX_SHEAR = 0.2
_MAX_SHIFT = 0.15  # of half an image
_CLUTTER_SIZE = 4  # pixels of the fragment's side
_CLUTTER_STRENGTH = (0.4, 0.9)
_NOISE = 0.12  # standard deviation; ink is 1, paper 0


@dataclass(frozen=True)
class Dataset:
    """Labelled images."""

    images: Tensor  # float32 [n, channels, height, width], zero mean and unit variance over the training set
    labels: Tensor  # int64 [n]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """Training data, what the search looks at (validation) and what it never sees (test)."""

    name: str
    seed: int
    train: Dataset
    validation: Dataset
    test: Dataset


def digits_task(seed: int = 0, *, train_images: int = TRAIN_IMAGES) -> Task:
    """The embedded task: training, 1,000 validation and 2,000 test images [n, 1, 16, 16]; equal for equal arguments."""
    from sklearn.datasets import load_digits  # slow to import, and only this task needs it

    digits = load_digits()
    originals = torch.from_numpy(digits.images).float().div(16.0).unsqueeze(1)  # [1797, 1, 8, 8] in 0..1
    labels = torch.from_numpy(digits.target).long()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    first, second = (round(len(labels) * share) for share in (_ORIGINALS["train"], sum(_ORIGINALS.values())))
    parts = (order[:first], order[first:second], order[second:])
    counts = (train_images, VALIDATION_IMAGES, TEST_IMAGES)
    raw = [_warped(originals[part], labels[part], count, generator) for part, count in zip(parts, counts, strict=True)]
    mean, std = raw[0].images.mean(), raw[0].images.std()
    train, validation, test = (Dataset((data.images - mean) / std, data.labels) for data in raw)
    return Task("digits", seed, train, validation, test)


def _warped(originals: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> Dataset:
    """`count` images from originals [n, 1, 8, 8], every original used as often as any other (plus or minus one)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    rounds = math.ceil(count / len(labels))
    chosen = torch.cat([torch.randperm(len(labels), generator=generator) for _ in range(rounds)])[:count]
    images = _affine(originals[chosen], *_random_maps(count, uniform))
    # The fragment comes from other digits, warped again, and lies anywhere: it may touch the digit or its margin.
    others = chosen[torch.randperm(count, generator=generator)]
    clutter = _affine(originals[others], *_random_maps(count, uniform))
    left, top = (torch.randint(0, SIZE - _CLUTTER_SIZE + 1, (2, count, 1), generator=generator)).unbind()
    across = torch.arange(SIZE)
    columns = (across >= left) & (across < left + _CLUTTER_SIZE)  # [count, 16]
    rows = (across >= top) & (across < top + _CLUTTER_SIZE)
    window = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
    moved = torch.where(window, clutter.roll((SIZE // 2, SIZE // 2), (2, 3)), 0.0)
    images = torch.maximum(images, moved * uniform(*_CLUTTER_STRENGTH, count, 1, 1, 1))
    inverted = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    images = torch.where(inverted, 1.0 - images, images)
    images = images + _NOISE * torch.randn(images.shape, generator=generator)
    return Dataset(images, labels[chosen])


def _random_maps(count: int, uniform: Callable[..., Tensor]) -> tuple[Tensor, ...]:
    """Rotation, scale, shear [count] and shift [count, 2] of each image."""
    return (
        uniform(-_MAX_ROTATION, _MAX_ROTATION, count),
        uniform(*_SCALE, count),
        uniform(-_MAX_SHEAR, _MAX_SHEAR, count),
        uniform(-_MAX_SHIFT, _MAX_SHIFT, count, 2),
    )


def _affine(images: Tensor, rotation: Tensor, scale: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """images [n, 1, 8, 8] under their maps -> [n, 1, 16, 16]; what comes from outside is 0."""
    cos, sin = rotation.cos() / scale, rotation.sin() / scale
    linear = torch.stack([torch.stack([cos, -sin + shear], 1), torch.stack([sin, cos], 1)], 1)  # [n, 2, 2]
    grid = functional.affine_grid(
        torch.cat([linear, shift.unsqueeze(2)], 2), [len(images), 1, SIZE, SIZE], align_corners=False
    )
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
