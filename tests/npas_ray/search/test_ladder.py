"""The ladder: what a decision depends on, and on nothing else."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npas_ray.search.ladder import Climb, Ladder

LADDERS = st.builds(
    Ladder,
    st.lists(st.integers(0, 30), min_size=1, max_size=4, unique=True).map(lambda rungs: tuple(sorted(rungs))),
    st.floats(0.05, 1),
)
Result = tuple[str, int, float]  # key, epochs, accuracy


@st.composite
def searches(draw: st.DrawFn) -> tuple[Ladder, list[Result]]:
    """A ladder and what many trials made of it: each at its own pace, some left in the middle. Ties are common."""
    ladder = draw(LADDERS)
    climb, results = Climb(ladder), list[Result]()
    rng = random.Random(draw(st.integers(0, 2**32)))
    under_way = [f"c{index}" for index in range(draw(st.integers(1, 30)))]
    for _ in range(draw(st.integers(0, 80))):
        key = rng.choice(under_way)
        rung = climb.next_rung(key)
        if rung is not None:
            results.append((key, rung, rng.randint(0, 20) / 20))
            climb.record(key, epochs=rung, accuracy=results[-1][2])
    return ladder, results


def replayed(ladder: Ladder, results: list[Result]) -> Climb:
    climb = Climb(ladder)
    for key, epochs, accuracy in results:
        climb.record(key, epochs=epochs, accuracy=accuracy)
    return climb


def standing(climb: Climb, results: list[Result]) -> dict[str, int | None]:
    return {key: climb.next_rung(key) for key, _, _ in results}


@given(searches(), st.data())
def test_a_climb_goes_on_where_it_was_cut(search: tuple[Ladder, list[Result]], data: st.DataObject) -> None:
    ladder, results = search
    cut = data.draw(st.integers(0, len(results)))
    climb = replayed(ladder, results[:cut])
    for key, epochs, accuracy in results[cut:]:
        assert climb.next_rung(key) == epochs  # nobody is asked for a rung that it has ended, or above its decision
        climb.record(key, epochs=epochs, accuracy=accuracy)
    assert standing(climb, results) == standing(replayed(ladder, results), results)
    assert climb.overlooked() == replayed(ladder, results).overlooked()


@given(searches())
def test_results_that_come_again_change_nothing(search: tuple[Ladder, list[Result]]) -> None:
    ladder, results = search
    climb = replayed(ladder, results)
    before = standing(climb, results)
    for key, epochs, _ in results:
        climb.record(key, epochs=epochs, accuracy=1.0)  # another seed, say
    assert standing(climb, results) == before


@given(searches(), st.randoms(use_true_random=False))
def test_a_decision_knows_its_rung_so_far_in_any_order(search: tuple[Ladder, list[Result]], rng: random.Random) -> None:
    ladder, results = search
    if not results:
        return
    key, epochs, _ = results[-1]
    same_rung = [r for r in results[:-1] if r[1] == epochs]
    rng.shuffle(same_rung)
    assert replayed(ladder, [*same_rung, results[-1]]).next_rung(key) == replayed(ladder, results).next_rung(key)


@given(searches())
def test_the_best_of_a_rung_goes_on_and_so_do_at_least_its_share_at_the_end(
    search: tuple[Ladder, list[Result]],
) -> None:
    ladder, results = search
    climb = replayed(ladder, results)
    for epochs in ladder.rungs[:-1]:
        rung = [(accuracy, key) for key, at, accuracy in results if at == epochs]
        if rung:
            best = max(accuracy for accuracy, _ in rung)
            assert all((key, epochs) in going_on(climb, results) for accuracy, key in rung if accuracy == best)
            allowed = math.ceil(ladder.keep * len(rung) - 1e-9)
            beaten = sorted((accuracy for accuracy, _ in rung), reverse=True)[allowed:]
            for accuracy, key in rung:  # by all results: either it went on, or it is overlooked, or it was beaten
                if (key, epochs) not in going_on(climb, results) and key not in climb.overlooked():
                    assert beaten and accuracy <= max(beaten)


def going_on(climb: Climb, results: list[Result]) -> set[tuple[str, int]]:
    """Who got past which rung: by a later result, or because it is asked for one."""
    return {
        (key, epochs)
        for key, epochs, _ in results
        if climb.next_rung(key) is not None or any(k == key and e > epochs for k, e, _ in results)
    }


def test_half_of_a_rung_goes_on() -> None:
    climb = Climb(Ladder((0, 2), keep=0.5))
    fates = []
    for index, accuracy in enumerate((0.5, 0.4, 0.6, 0.55, 0.3)):
        climb.record(f"c{index}", epochs=0, accuracy=accuracy)
        fates.append(climb.next_rung(f"c{index}"))
    assert fates == [2, None, 2, 2, None]


def test_who_was_stopped_by_chance_is_named() -> None:
    climb = Climb(Ladder((0, 2), keep=0.5))
    for index, accuracy in enumerate((0.5, 0.4, 0.3, 0.2)):
        climb.record(f"c{index}", epochs=0, accuracy=accuracy)
    assert climb.overlooked() == ["c1"]


def test_one_rung_is_the_end() -> None:
    climb = Climb(Ladder((2,)))
    assert climb.next_rung("a") == 2
    climb.record("a", epochs=2, accuracy=0.1)
    climb.record("a", epochs=20, accuracy=0.9)  # of no rung
    assert climb.next_rung("a") is None
    assert climb.is_finished("a")


@pytest.mark.parametrize("rungs", [(), (2, 1), (1, 1), (-1, 2)])
def test_bad_rungs_are_refused_with_what_was_given(rungs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="each more than the one before; got"):
        Ladder(rungs)


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.5, math.nan])
def test_a_share_is_a_share(keep: float) -> None:
    with pytest.raises(ValueError, match="keep is the share"):
        Ladder((0, 2), keep=keep)


def test_an_accuracy_is_a_number() -> None:
    with pytest.raises(ValueError, match="candidate a: the accuracy after 0 epochs"):
        Climb(Ladder((0, 2))).record("a", epochs=0, accuracy=math.nan)
