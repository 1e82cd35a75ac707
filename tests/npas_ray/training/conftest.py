"""A small teacher on the real task, trained once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from npas_ray.networks.backbone import Backbone, make_backbone
from npas_ray.training.data import Task, digits_task
from npas_ray.training.optimise import Schedule
from npas_ray.training.teacher import Teacher, TeacherSettings, train_teacher

SETTINGS = TeacherSettings(Schedule(epochs=4, batch=64), operator_steps=25, operator_batch=32)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Reproducibility is promised for one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return make_backbone(
        "small", input_shape=(1, 16, 16), stem=(16, 2), blocks=((16, 1), (32, 2), (32, 1)), classes=10, expansion=2
    )


@pytest.fixture(scope="session")
def settings() -> TeacherSettings:
    return SETTINGS


@pytest.fixture(scope="session")
def task() -> Task:
    return digits_task()


@pytest.fixture(scope="session")
def teacher(one_thread: None, task: Task, backbone: Backbone) -> Teacher:
    return train_teacher(task, backbone, SETTINGS)
