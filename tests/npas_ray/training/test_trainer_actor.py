from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import ray
import torch

from npas_ray.networks.backbone import Backbone
from npas_ray.networks.deploying import deploy
from npas_ray.networks.lowering import lower
from npas_ray.space.choices import Architecture
from npas_ray.training import teacher as teacher_module
from npas_ray.training.data import Task
from npas_ray.training.fast_evaluation import evaluate
from npas_ray.training.optimise import accuracy
from npas_ray.training.teacher import Teacher, cached_teacher
from npas_ray.training.trainer_actor import TeacherOf, Trainer, pack, unpack

ARCHITECTURE = Architecture.from_json(["3x3/pattern@5", "1x1+3x3dw+1x1/block-based@2", "skip"])
BLOCK_HEIGHT = 16


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_what_is_packed_comes_out(task: Task, teacher: Teacher, backbone: Backbone) -> None:
    trained = evaluate(ARCHITECTURE, task=task, teacher=teacher, block_height=BLOCK_HEIGHT, epochs=0)
    network, masks = unpack(pack(trained), backbone, ARCHITECTURE)
    assert torch.equal(network(task.test.images[:9]), trained.network(task.test.images[:9]))
    assert all(torch.equal(masks[name], mask) for name, mask in trained.masks.items())
    assert set(masks) == set(trained.masks)


NewTrainer = cast(Any, Trainer).remote  # ray's decorator says nothing of it


def test_the_actor_does_what_the_function_does(
    session: None, tmp_path: Path, task: Task, teacher: Teacher, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_module, "train_teacher", lambda *_: teacher)
    cached_teacher(tmp_path, task, backbone)
    named = cast(Any, Trainer).options(name="keeper")
    trainer = named.remote(backbone, str(tmp_path), block_height=BLOCK_HEIGHT, task={})
    texts = json.loads(json.dumps(ARCHITECTURE.to_json()))
    plain = ray.get(trainer.evaluate.remote(texts, epochs=1, seed=3))
    assert json.loads(json.dumps(plain)) == plain
    with_weights, data = ray.get(trainer.evaluate_with_weights.remote(texts, epochs=1, seed=3))
    here = evaluate(
        ARCHITECTURE, task=task, teacher=teacher, block_height=BLOCK_HEIGHT, epochs=1, seed=3
    ).evaluation.to_json()
    assert {**plain, "wall_s": 0} == {**with_weights, "wall_s": 0} == {**here, "wall_s": 0}

    network, masks = unpack(data, backbone, ARCHITECTURE)
    assert accuracy(network, task.validation) == plain["accuracy"]
    graph, _ = deploy(network, backbone, ARCHITECTURE, masks, block_height=BLOCK_HEIGHT)
    assert graph == lower(backbone, ARCHITECTURE, block_height=BLOCK_HEIGHT)
    assert ray.get(trainer.teacher.remote())["accuracy"] == teacher.accuracy
    elsewhere = NewTrainer(backbone, TeacherOf("keeper"), block_height=BLOCK_HEIGHT, task={})
    there = ray.get(elsewhere.evaluate.remote(texts, epochs=1, seed=3))
    assert {**there, "wall_s": 0} == {**here, "wall_s": 0}
    for gone in (trainer, elsewhere):
        ray.kill(gone, no_restart=False)
    restarted = ray.get(elsewhere.evaluate.remote(texts, epochs=1, seed=3))
    assert {**restarted, "wall_s": 0} == {**here, "wall_s": 0}
    with pytest.raises(ValueError, match="2 layers"):
        ray.get(trainer.evaluate.remote(texts[:2]))
