from __future__ import annotations

from typing import Any

import pytest
import torch

from npas_ray.training import data
from npas_ray.training.data import Task, digits_task


def test_shapes_types_and_scale(task: Task) -> None:
    for part, count in ((task.train, 2000), (task.validation, 1000), (task.test, 2000)):
        assert part.images.shape == (count, 1, 16, 16)
        assert part.images.dtype == torch.float32
        assert part.labels.shape == (count,)
        assert part.labels.dtype == torch.int64
        assert torch.bincount(part.labels, minlength=10).min() > 0.07 * count
    assert float(task.train.images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(task.train.images.std()) == pytest.approx(1, abs=1e-4)


def test_the_seed_decides(task: Task) -> None:
    again, other = digits_task(0), digits_task(1)
    assert torch.equal(task.test.images, again.test.images)
    assert torch.equal(task.train.labels, again.train.labels)
    assert not torch.equal(task.train.images, other.train.images)


def test_no_original_is_in_two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clutter included: every set sees the originals that it was given and no others."""
    given: list[torch.Tensor] = []
    warped = data._warped

    def spy(originals: torch.Tensor, *rest: Any) -> data.Dataset:
        given.append(originals.flatten(1))
        return warped(originals, *rest)

    monkeypatch.setattr(data, "_warped", spy)
    digits_task()
    assert sum(len(part) for part in given) == 1797
    train, validation, test = ({tuple(row.tolist()) for row in part} for part in given)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_half_of_the_images_are_inverted(task: Task) -> None:
    # The margin is paper: dark in one half, bright in the other.
    corners = task.train.images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].median(1).values
    bright = float((corners > 0.5).double().mean())
    assert 0.45 < bright < 0.55
