from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from npas_ray.networks.backbone import Backbone
from npas_ray.networks.deploying import deploy
from npas_ray.networks.lowering import lower
from npas_ray.space.choices import Architecture
from npas_ray.training.data import Dataset, Task
from npas_ray.training.fast_evaluation import EarlyStop, Trained, evaluate, full_train
from npas_ray.training.optimise import Schedule, accuracy, fit
from npas_ray.training.teacher import Teacher

BLOCK_HEIGHT = 16
DENSE = Architecture.from_json(["3x3", "3x3", "3x3"])
MIXED = Architecture.from_json(
    ["3x3/block-punched@3", "1x1+3x3dw+1x1/filter@2", "3x3dw+1x1/block-based@2"],
)
RUINED = Architecture.from_json(["3x3/filter@10", "1x1/filter@10", "3x3/filter@10"])


def run(architecture: Architecture, task: Task, teacher: Teacher, epochs: int = 1, seed: int = 0) -> Trained:
    return evaluate(
        architecture, task=task, teacher=teacher, block_height=BLOCK_HEIGHT, epochs=epochs, seed=seed, early_stop=None
    )


def test_the_same_seed_gives_the_same_bits(task: Task, teacher: Teacher) -> None:
    torch.manual_seed(1)
    first = run(MIXED, task, teacher)
    torch.manual_seed(2)
    second, other = run(MIXED, task, teacher), run(MIXED, task, teacher, seed=1)
    assert first.evaluation.accuracy == second.evaluation.accuracy
    assert first.evaluation.train_loss == second.evaluation.train_loss
    state = second.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.network.state_dict().items())
    assert other.evaluation.train_loss != first.evaluation.train_loss


def test_masks_hold_through_training(task: Task, teacher: Teacher, backbone: Backbone) -> None:
    trained = run(MIXED, task, teacher)
    parameters = dict(trained.network.named_parameters())
    assert trained.masks
    for name, mask in trained.masks.items():
        assert not parameters[name][~mask].any(), name
    graph, _ = deploy(trained.network, backbone, MIXED, trained.masks, block_height=BLOCK_HEIGHT)
    assert graph == lower(backbone, MIXED, block_height=BLOCK_HEIGHT)


def test_no_epoch_keeps_the_teacher_as_it_is(task: Task, teacher: Teacher) -> None:
    evaluation = run(DENSE, task, teacher, epochs=0).evaluation
    assert evaluation.accuracy == pytest.approx(teacher.accuracy, abs=0.03)  # other batch norm statistics
    assert evaluation.epochs_run == 0
    assert evaluation.train_loss is None
    assert evaluation.kept_rate == 1.0
    assert teacher.network().stem.bn.running_mean is not None


def test_training_repairs_what_pruning_broke(task: Task, teacher: Teacher) -> None:
    before, after = (run(MIXED, task, teacher, epochs=epochs).evaluation for epochs in (0, 2))
    assert after.accuracy > before.accuracy + 0.05
    # stem, fc and depthwise weights, then each block's masked ones
    kept = 144 + 320 + 16 * 9 + 32 * 9 + 768 + (16 * 16 + 16 * 32) + 32 * 16
    assert after.kept_rate == kept / (144 + 320 + 32 * 9 + 32 * 9 + 16 * 16 * 9 + (16 * 32 + 32 * 32) + 32 * 32)
    assert after.train_loss is not None and math.isfinite(after.train_loss)


def test_the_teacher_is_not_touched(task: Task, teacher: Teacher) -> None:
    before = {name: value.clone() for name, value in teacher.tensors.items()}
    run(DENSE, task, teacher)
    assert all(torch.equal(before[name], value) for name, value in teacher.tensors.items())


def test_a_hopeless_candidate_stops_after_one_epoch(task: Task, teacher: Teacher) -> None:
    rule = EarlyStop(hopeless=20.0)  # 200 %: nothing reaches that
    evaluation = evaluate(
        RUINED, task=task, teacher=teacher, block_height=BLOCK_HEIGHT, epochs=3, early_stop=rule
    ).evaluation
    assert evaluation.stopped_early
    assert evaluation.epochs_run == 1


def test_patience_ends_what_no_longer_improves(task: Task, teacher: Teacher) -> None:
    rule = EarlyStop(hopeless=0.0, patience=1).rule(teacher.network(), task.validation)
    assert [rule(1), rule(2)] == [False, True]


def test_full_training_learns_from_the_teacher(task: Task, teacher: Teacher) -> None:
    """Labels alone say nothing here (they are shuffled); what is learnt comes from the teacher's answers."""
    generator = torch.Generator().manual_seed(0)
    shuffled = task.train.labels[torch.randperm(len(task.train), generator=generator)]
    misled = Task("misled", 0, Dataset(task.train.images, shuffled), task.validation, task.test)
    common: dict[str, Any] = {"task": misled, "teacher": teacher, "block_height": BLOCK_HEIGHT, "epochs": 2}
    taught = full_train(MIXED, distillation=1.0, **common)
    untaught = full_train(MIXED, distillation=0.0, **common)
    assert taught.evaluation.accuracy > untaught.evaluation.accuracy + 0.2
    assert taught.evaluation.epochs_run == 2


def test_schedule_rises_and_falls_to_zero() -> None:
    schedule = Schedule(epochs=2, learning_rate=1e-2, warmup=0.25)
    rates = [schedule.rate(i / 100) for i in range(101)]
    assert max(rates) == pytest.approx(1e-2)
    assert rates[0] == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 25
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_fit_trains_every_epoch_on_other_orders_and_reports_the_last_loss(task: Task, teacher: Teacher) -> None:
    network = teacher.network()
    small = Dataset(task.train.images[:200], task.train.labels[:200])
    steps = []
    result = fit(network, small, Schedule(epochs=3), seed=0, after_step=lambda: steps.append(1))
    assert len(steps) == 3 * (200 // 32)
    assert result.epochs_run == 3
    assert accuracy(network, small) > teacher.accuracy
