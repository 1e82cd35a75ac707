from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from npas_ray.networks.backbone import Backbone
from npas_ray.networks.module import build_module
from npas_ray.space.choices import Architecture, LayerChoice, Operator
from npas_ray.training import teacher as teacher_module
from npas_ray.training.data import Task
from npas_ray.training.optimise import accuracy, recalibrate
from npas_ray.training.teacher import (
    SETTINGS_FILE,
    WEIGHTS_FILE,
    Teacher,
    TeacherSettings,
    cached_teacher,
    train_teacher,
)


def uniform(operator: Operator) -> Architecture:
    return Architecture((LayerChoice(operator),) * 3)


def test_the_teacher_has_learnt(teacher: Teacher, task: Task) -> None:
    assert teacher.accuracy > 0.5
    assert accuracy(teacher.network(), task.validation) == teacher.accuracy


@pytest.mark.parametrize("operator", [Operator.CONV1X1, Operator.DW3X3_CONV1X1, Operator.CONV1X1_DW3X3_CONV1X1])
def test_each_operator_is_closer_to_its_block_than_a_new_one(
    teacher: Teacher, task: Task, backbone: Backbone, operator: Operator
) -> None:
    original, inherited = teacher.network(), teacher.inherit(uniform(operator))
    fresh = build_module(backbone, uniform(operator))
    x = original.stem(task.validation.images)
    for index, block in enumerate(backbone.blocks):
        with torch.no_grad():
            wanted = original.eval().blocks[index](x)
            error = functional.mse_loss(inherited.train().blocks[index](x), wanted)
            untrained = functional.mse_loss(fresh.train().blocks[index](x), wanted)
        assert error < 0.7 * untrained, block.name
        x = wanted


def test_inherited_operators_beat_chance_without_any_training(teacher: Teacher, task: Task) -> None:
    network = teacher.inherit(uniform(Operator.CONV1X1_DW3X3_CONV1X1))
    recalibrate(network, task.train.images[:500])
    assert accuracy(network, task.validation) > 0.2


def test_the_seed_decides(task: Task, backbone: Backbone, settings: TeacherSettings, teacher: Teacher) -> None:
    before = torch.random.get_rng_state()
    again = train_teacher(task, backbone, settings)
    assert torch.equal(before, torch.random.get_rng_state())
    assert again.accuracy == teacher.accuracy
    assert set(again.tensors) == set(teacher.tensors)
    assert all(torch.equal(again.tensors[name], value) for name, value in teacher.tensors.items())


def test_bytes_and_back(teacher: Teacher, backbone: Backbone) -> None:
    again = Teacher.from_bytes(teacher.to_bytes(), backbone)
    assert again.accuracy == teacher.accuracy
    assert all(torch.equal(again.tensors[name], value) for name, value in teacher.tensors.items())
    with pytest.raises(ValueError, match="not a teacher's weights"):
        Teacher.from_bytes(b"PK\x03\x04 something else", backbone)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, teacher: Teacher) -> list[int]:
    """Trainings of a teacher, which are replaced by the one that is already there."""
    calls: list[int] = []

    def train(task: Task, backbone: Backbone, settings: TeacherSettings) -> Teacher:
        calls.append(settings.seed)
        return teacher

    monkeypatch.setattr(teacher_module, "train_teacher", train)
    return calls


def test_the_cache_is_used_until_anything_differs(
    tmp_path: Path, task: Task, backbone: Backbone, counted: list[int]
) -> None:
    first = cached_teacher(tmp_path, task, backbone)
    second = cached_teacher(tmp_path, task, backbone)
    assert counted == [0]
    assert second.accuracy == first.accuracy
    cached_teacher(tmp_path, task, backbone, TeacherSettings(seed=1))
    assert counted == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([WEIGHTS_FILE, SETTINGS_FILE])


@pytest.mark.parametrize("damaged", [WEIGHTS_FILE, SETTINGS_FILE])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x00" * 100])
def test_a_damaged_cache_is_replaced(
    tmp_path: Path, task: Task, backbone: Backbone, counted: list[int], damaged: str, content: bytes | None
) -> None:
    cached_teacher(tmp_path, task, backbone)
    if content is None:
        (tmp_path / damaged).unlink()
    else:
        (tmp_path / damaged).write_bytes(content)
    cached_teacher(tmp_path, task, backbone)
    cached_teacher(tmp_path, task, backbone)
    assert counted == [0, 0]
