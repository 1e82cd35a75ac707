"""What a race says: who leads, by how much, and which bars are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from benchmarks._standings import Standings, bars, front_bars


def standings(regrets: Mapping[str, Sequence[float]], *, front: bool = False) -> Standings:
    """At 50, 100 and 200, the same for four seeds but for what they have in common."""
    luck = np.array([0.0, 0.4, -0.4, 0.0])[:, None]
    scores = {policy: np.array([values] * 4) + luck for policy, values in regrets.items()}
    return Standings("somewhere", (50, 100, 200), scores, {policy: [1.0] for policy in regrets}, front)


def met(found: Sequence[Mapping[str, object]], words: str) -> bool:
    (one,) = [bar for bar in found if words in str(bar["words"])]
    return bool(one["met"])


def test_a_lead_is_of_pairs_so_what_seeds_have_in_common_does_not_blur_it() -> None:
    made = standings({"npas": [2, 1, 0.5], "random": [5, 4, 3]})
    assert made.lead("npas", "random", 100) == pytest.approx((3.0, 3.0, 3.0))


def test_only_those_are_others_that_are_told_as_much() -> None:
    made = standings({p: [1, 1, 1] for p in ("npas", "npas+predictor", "local", "local+predictor")})
    assert made.others("npas") == ["local"]
    assert made.others("npas+predictor") == ["local+predictor"]


def test_bars_of_the_embedded_task() -> None:
    made = bars(standings({"npas": [2.4, 1.0, 0.5], "paper": [9, 4.2, 3.0], "evolution": [8, 1.9, 2.5]}), own=True)
    assert met(made, "a quarter of paper")
    assert not met(made, "half of the best other, evolution")
    assert met(made, "at 50 below every other at 200")


def test_elsewhere_it_has_to_be_first() -> None:
    made = bars(standings({"npas": [3, 1, 1], "paper": [2, 2, 0.1], "random": [9, 9, 9]}), own=False)
    assert [bar["met"] for bar in made] == [False, True]


def test_of_hypervolumes_more_is_better() -> None:
    made = standings({"npas": [60, 70, 71], "optuna-nsga2": [61, 65, 72]}, front=True)
    assert [bar["met"] for bar in front_bars(made, own=True)] == [True, False]
    assert made.lead("npas", "optuna-nsga2", 100)[0] == pytest.approx(5.0)


def test_without_others_there_is_nothing_to_check() -> None:
    assert bars(standings({"npas": [1, 1, 1]}), own=True) == []


def test_it_prints_every_policy_best_first() -> None:
    text = str(standings({"random": [9, 8, 7], "npas": [2, 1, 0.5]}))
    assert text.index("npas ") < text.index("random ")
    assert "npas leads random at 100 by 7.00" in text
