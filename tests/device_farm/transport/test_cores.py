from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_farm.transport.cores import parse_cpu_list, plan_cores


def test_one_core_is_shared() -> None:
    plan = plan_cores([5])
    assert plan.reserved is None
    assert plan.others == {5}
    assert "only one" in plan.describe()


def test_the_last_allowed_core_is_reserved() -> None:
    plan = plan_cores({1, 7, 3})
    assert (plan.reserved, plan.others, plan.allowed) == (7, frozenset({1, 3}), frozenset({1, 3, 7}))
    assert "core 7" in plan.describe()


def test_its_sibling_is_given_up_where_enough_is_left() -> None:
    pairs = {0: frozenset({0, 2}), 1: frozenset({1, 3}), 2: frozenset({0, 2}), 3: frozenset({1, 3})}
    plan = plan_cores(range(4), pairs)
    assert (plan.reserved, plan.others, plan.siblings_idle) == (3, frozenset({0, 2}), True)


def test_its_sibling_stays_in_use_on_a_small_machine() -> None:
    plan = plan_cores([0, 1], {0: frozenset({0, 1}), 1: frozenset({0, 1})})
    assert (plan.reserved, plan.others, plan.siblings_idle) == (1, frozenset({0}), False)
    assert "sibling" in plan.describe()


def test_siblings_that_are_not_allowed_do_not_matter() -> None:
    plan = plan_cores([0, 1, 2], {2: frozenset({2, 9})})
    assert (plan.reserved, plan.others, plan.siblings_idle) == (2, frozenset({0, 1}), True)


def test_a_core_for_each_thread() -> None:
    plan = plan_cores({1, 7, 3, 5}, count=2)
    assert (plan.reserved, plan.measuring, plan.others) == (7, (7, 5), frozenset({1, 3}))
    assert "cores 7, 5 are reserved" in plan.describe()


def test_one_core_is_left_for_everything_else() -> None:
    plan = plan_cores([0, 1, 2, 3], count=4)
    assert (plan.measuring, plan.others) == ((3, 2, 1), frozenset({0}))


def test_siblings_of_all_reserved_cores_are_given_up() -> None:
    pairs = {core: frozenset({core % 4, core % 4 + 4}) for core in range(8)}
    plan = plan_cores(range(8), pairs, count=2)
    assert (plan.measuring, plan.others, plan.siblings_idle) == ((7, 6), frozenset({0, 1, 4, 5}), True)


def test_cores_that_somebody_measures_on_are_left_alone() -> None:
    plan = plan_cores([0, 1, 2, 3], taken=[3])
    assert (plan.measuring, plan.others) == ((2,), frozenset({0, 1}))
    plan = plan_cores([0, 1, 2, 3], count=2, taken=[2])
    assert (plan.measuring, plan.others) == ((3, 1), frozenset({0}))


def test_without_enough_free_cores_they_are_shared() -> None:
    plan = plan_cores([0, 1], taken=[1])
    assert (plan.measuring, plan.others) == ((1,), frozenset({0}))


_HOLDS = """
import sys
from device_farm.transport import cores

plan = cores.reserve()
print(plan.reserved, *sorted(plan.others), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared out")
def test_processes_take_different_cores_and_death_frees_them(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def measuring() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
        with subprocess.Popen(
            [sys.executable, "-c", _HOLDS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        ) as process:
            assert process.stdout is not None
            yield process, [int(core) for core in process.stdout.readline().split()]
            process.kill()

    cores = sorted(os.sched_getaffinity(0))
    with measuring() as (first, (reserved, *_)):
        assert reserved == cores[-1]
        with measuring() as (_, (other, *others)):
            if len(cores) > 2:
                assert other == cores[-2]
                assert reserved not in others
            first.kill()
            first.wait()
            with measuring() as (_, (again, *_)):
                assert again == cores[-1]


@pytest.mark.parametrize(("text", "cores"), [("0", {0}), ("0-2,5\n", {0, 1, 2, 5}), ("3,1", {1, 3})])
def test_cpu_lists(text: str, cores: set[int]) -> None:
    assert parse_cpu_list(text) == cores


def test_cpu_lists_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpu_list("all")


_RESERVES = """
import os, subprocess, sys, threading
from device_farm.transport import cores

ready, asked = threading.Event(), threading.Event()
seen = []
def older_thread():
    ready.set(); asked.wait(); seen.append(os.sched_getaffinity(0))
thread = threading.Thread(target=older_thread); thread.start(); ready.wait()

before = os.sched_getaffinity(0)
plan = cores.reserve()
asked.set(); thread.join()
child = subprocess.run([sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"],
                       capture_output=True, text=True).stdout.strip()
assert plan.reserved == max(before), plan
assert os.sched_getaffinity(0) == plan.others and plan.reserved not in plan.others
assert seen == [set(plan.others)], seen
assert child == str(sorted(plan.others)), child
os.sched_setaffinity(0, {plan.reserved})  # what the runner does: it may still go there
cores.release(plan)
assert os.sched_getaffinity(0) == before
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: there is nothing to reserve")
def test_reserving_moves_all_threads_and_later_children() -> None:
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", _RESERVES], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
