from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from npas_ray.errors import SpaceError
from npas_ray.networks.backbone import DIGITS, Backbone, make_backbone
from npas_ray.networks.operators import Cut, pruned_layers
from npas_ray.pruning.schemes import make_mask
from npas_ray.space.allowed import OPERATORS, Allowed
from npas_ray.space.choices import RATES, Architecture, LayerChoice, Operator, Scheme
from npas_ray.space.legality import Place, places, plain
from npas_ray.space.search_space import SearchSpace

ANY_CHOICE = [LayerChoice(*parts) for parts in itertools.product(Operator, Scheme, RATES)]


def backbone(*blocks: tuple[int, int], stem: int = 8, classes: int = 10, head: bool = False) -> Backbone:
    return make_backbone(
        "small",
        input_shape=(3, 16, 16),
        stem=(stem, 1),
        blocks=blocks,
        classes=classes,
        expansion=2,
        searchable_head=head,
    )


Item = TypeVar("Item")


def subset(items: Sequence[Item]) -> st.SearchStrategy[list[Item]]:
    return st.lists(st.sampled_from(items), min_size=1, unique=True)


@st.composite
def spaces(draw: st.DrawFn, *, max_layers: int = 3) -> SearchSpace:
    """A small space with at least one architecture."""
    widths = st.integers(1, 24)
    blocks = draw(st.lists(st.tuples(widths, st.integers(1, 2)), min_size=1, max_size=max_layers))
    frame = backbone(*blocks, stem=draw(widths), classes=draw(st.integers(1, 12)), head=draw(st.booleans()))
    return SearchSpace(
        frame,
        operators=draw(subset(OPERATORS[:-1])) + [Operator.SKIP] * draw(st.booleans()),
        schemes=draw(subset(list(Scheme))),
        rates=[1.0, *draw(subset(RATES))],
    )


def any_architecture(space: SearchSpace) -> st.SearchStrategy[Architecture]:
    """Legal, illegal and oddly named ones alike."""
    layers = st.lists(st.sampled_from(ANY_CHOICE), min_size=space.layers, max_size=space.layers)
    return layers.map(lambda choices: Architecture(tuple(choices)))


fast = settings(deadline=None, derandomize=True, max_examples=100)


@fast
@given(st.data())
def test_canonical_is_idempotent_and_legal_iff_in_the_space(data: st.DataObject) -> None:
    space = data.draw(spaces())
    architecture = data.draw(any_architecture(space))
    canonical = space.canonical(architecture)
    assert space.canonical(canonical) == canonical
    reasons = [space.why_illegal(index, choice) for index, choice in enumerate(architecture.layers)]
    assert space.is_legal(architecture) == (not any(reasons)) == (canonical in space)
    if any(reasons):
        with pytest.raises(SpaceError, match="nearest legal choice: "):
            space.validate(architecture)
    else:
        assert space.validate(architecture) == canonical
        assert space.parse(architecture.to_json()) == canonical


def pruned_network(place: Place, choice: LayerChoice, seed: int) -> object:
    """What the mask makers take from a layer with random weights: the definition of equality, without any rule."""
    choice = plain(choice)
    what = pruned_layers(choice)
    if what is None:
        return choice.operator, ()
    masks = []
    for stream, layer in enumerate(place.sub_layers(choice.operator)):
        if layer.name not in what.layers or (what.cut is Cut.EXPANSION and layer.name != "expand"):
            continue
        weight = torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(10 * seed + stream))
        mask = make_mask(weight, scheme=choice.scheme, rate=choice.rate, block_height=8)
        if not mask.all():
            masks.append((layer.name, what.cut is Cut.WEIGHTS, mask.numpy().tobytes()))
    return choice.operator, tuple(masks)


@fast
@given(spaces(max_layers=2))
def test_equal_keys_iff_equal_networks(space: SearchSpace) -> None:
    torch.set_num_threads(1)
    for index, place in enumerate(places(space.backbone)):
        legal = [choice for choice in ANY_CHOICE if space.why_illegal(index, choice) is None]
        layers = [space.choices(other)[0] for other in range(space.layers)]
        by_network: dict[object, set[str]] = {}
        for choice in legal:
            layers[index] = choice
            key = space.canonical(Architecture(tuple(layers))).key
            network = tuple(pruned_network(place, choice, seed) for seed in range(6))
            by_network.setdefault(network, set()).add(key)
        assert all(len(keys) == 1 for keys in by_network.values()), "equal networks have one key"
        assert len(set.union(*by_network.values())) == len(by_network), "and different ones different keys"
        assert len(by_network) == len(space.choices(index))


@fast
@given(spaces(max_layers=2).filter(lambda space: space.size <= 3000))
def test_size_counts_the_enumeration(space: SearchSpace) -> None:
    everything = list(space)
    assert len(everything) == len({architecture.key for architecture in everything}) == space.size
    assert all(a in space and space.is_legal(a) and space.canonical(a) == a for a in everything)


@fast
@given(st.data())
def test_neighbours_are_legal_distinct_and_one_choice_away(data: st.DataObject) -> None:
    space = data.draw(spaces())
    start = space.sample(np.random.default_rng(data.draw(st.integers(0, 99))))
    everywhere, near = list(space.neighbours(start)), list(space.near_neighbours(start))
    assert len(everywhere) == sum(len(space.choices(i)) - 1 for i in range(space.layers))
    assert len(set(everywhere)) == len(everywhere) and len(set(near)) == len(near)
    assert set(near) <= set(everywhere)
    for other in everywhere:
        assert other in space
        assert sum(a != b for a, b in zip(start.layers, other.layers, strict=True)) == 1
        assert start in set(space.neighbours(other))


@fast
@given(st.data())
def test_mutation_and_crossover_stay_in_the_space(data: st.DataObject) -> None:
    space = data.draw(spaces())
    seed = data.draw(st.integers(0, 99))
    rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    assert (space.sample(same), space.sample(same)) == (first, second)
    for near, reachable in ((True, space.near_neighbours), (False, space.neighbours)):
        mutant = space.mutate(first, rng, near=near)
        assert mutant in set(reachable(first)) or (space.size == 1 and mutant == first)
    child = space.crossover(first, second, rng)
    assert child in space
    assert all(c in pair for c, *pair in zip(child.layers, first.layers, second.layers, strict=True))


@fast
@given(spaces(max_layers=1).filter(lambda space: space.layers == 1))
def test_small_steps_reach_every_choice(space: SearchSpace) -> None:
    reached, frontier = set(), [next(iter(space))]
    while frontier:
        here = frontier.pop()
        if here not in reached:
            reached.add(here)
            frontier += space.near_neighbours(here)
    assert reached == set(space)


def test_small_steps_by_hand() -> None:
    space = SearchSpace(backbone((32, 1), stem=32))

    def near(text: str) -> set[str]:
        return {str(a.layers[0]) for a in space.near_neighbours(space.parse([text]))}

    assert near("3x3/block-punched@3") == {
        "3x3/block-punched@2.5",
        "3x3/block-punched@5",
        "3x3/filter@3",
        "3x3/pattern@3",
        "3x3/kernel-block@3",
        "1x1/block-based@3",
        "3x3dw+1x1/block-based@3",
        "1x1+3x3dw+1x1/block-based@3",
        "skip",
    }
    assert near("1x1") == {
        "1x1/filter@2",
        "1x1/block-based@2",
        "3x3",
        "3x3dw+1x1",
        "1x1+3x3dw+1x1",
        "skip",
    }
    assert {"3x3", "3x3/pattern@10", "3x3/block-punched@10", "1x1/filter@10"} <= near("skip")
    assert "3x3/filter@3" not in near("skip")


def test_sampling_is_uniform_and_covers() -> None:
    space = SearchSpace(backbone((8, 1)), operators=(Operator.CONV1X1, Operator.SKIP), rates=(1, 2, 5))
    assert space.size == 6
    rng = np.random.default_rng(0)
    seen = Counter(space.sample(rng) for _ in range(3000))
    assert set(seen) == set(space)
    assert max(seen.values()) < 1.25 * min(seen.values())


def test_spaces_from_one_to_huge() -> None:
    one = SearchSpace(backbone((8, 2)), operators=(Operator.CONV3X3,), rates=(1,))
    only = next(iter(one))
    assert one.size == 1 and one.sample(np.random.default_rng(0)) == only
    assert one.mutate(only, np.random.default_rng(0)) == only
    assert list(one.neighbours(only)) == []

    huge = SearchSpace(backbone(*[(64, 1)] * 50, stem=64, head=True))
    assert huge.layers == 51 and huge.layer_names[-1] == "fc"
    assert huge.size == len(huge.choices(0)) ** 50 * len(huge.choices(50)) > 10**40
    rng = np.random.default_rng(0)
    parent = huge.sample(rng)
    assert huge.mutate(parent, rng) in huge
    assert next(iter(huge)) in huge
    assert "51 layers, 10^91.2 architectures" in repr(huge)
    assert "10^361.2" in repr(SearchSpace(backbone(*[(64, 1)] * 200, stem=64)))  # no float is that large


def test_the_space_does_not_depend_on_the_order_of_the_lists() -> None:
    forth = SearchSpace(DIGITS, operators=OPERATORS, rates=RATES)
    back = SearchSpace(DIGITS, operators=OPERATORS[::-1], rates=RATES[::-1])
    assert [forth.choices(i) for i in range(7)] == [back.choices(i) for i in range(7)]


def test_equal_networks_by_hand() -> None:
    space = SearchSpace(backbone((8, 1), (8, 1), (8, 1), (8, 1), stem=8, head=True))
    odd = ["skip/filter@3", "3x3/filter@1", "1x1/block-punched@2", "3x3/block-based@2", "fc/kernel-block@2"]
    canonical = space.parse(odd).to_json()
    assert canonical == ["skip", "3x3", "1x1/block-based@2", "3x3/block-punched@2", "fc/block-based@2"]


def test_rates_that_leave_the_same_units_of_a_narrow_layer_are_one() -> None:
    space = SearchSpace(backbone((4, 1), stem=4), operators=(Operator.CONV1X1,), schemes=(Scheme.BLOCK_BASED,))
    # Of 4 taps rates 2 and 2.5 keep two, 3 keeps one, 5 and more would leave less than one.
    assert [str(choice) for choice in space.choices(0)] == ["1x1", "1x1/block-based@2", "1x1/block-based@3"]
    assert space.parse(["1x1/block-based@2.5"]) == space.parse(["1x1/block-based@2"])
    assert "less than one" in str(space.why_illegal(0, LayerChoice(Operator.CONV1X1, Scheme.BLOCK_BASED, 5)))
    near_one = SearchSpace(backbone((4, 1), stem=4), operators=(Operator.CONV1X1,), rates=(1, 1.1))
    assert near_one.size == 1


def test_a_single_filter_makes_unstructured_and_column_pruning_one() -> None:
    frame = backbone((1, 1), stem=32)
    both = SearchSpace(
        frame, operators=(Operator.CONV3X3,), schemes=(Scheme.BLOCK_PUNCHED, Scheme.UNSTRUCTURED), rates=(2,)
    )
    assert [str(choice) for choice in both.choices(0)] == ["3x3/block-punched@2"]
    assert both.parse(["3x3/unstructured@2"]) == both.parse(["3x3/block-punched@2"])
    alone = SearchSpace(frame, operators=(Operator.CONV3X3,), schemes=(Scheme.UNSTRUCTURED,), rates=(2,))
    assert [str(choice) for choice in alone.choices(0)] == ["3x3/unstructured@2"]


@pytest.mark.parametrize(
    ("layer", "choice", "reason"),
    [
        (0, "fc", "head only"),
        (2, "3x3", "its operator is 'fc'"),
        (1, "skip", "from 8 to 16 channels with stride 2"),
        (0, "3x3/pattern@2", "2.25 or more; got 2"),
        (0, "1x1/pattern@3", "patterns are of 3x3 CONV"),
        (0, "3x3dw+1x1/pattern@3", "depthwise part is never pruned"),
        (2, "fc/filter@2", "would remove classes"),
        (0, "3x3/dense@2", "its rate is 1; got 2"),
        (0, "3x3/filter@0.5", "number >= 1; got 0.5"),
        (0, "3x3/filter@nan", "number >= 1; got nan"),
        (0, "3x3/filter@inf", "number >= 1; got inf"),
        (0, "3x3/filter@10", "8 filters, and less than one"),
        (0, "1x1/block-based@10", "8 taps, and less than one"),
        (0, "3x3/unstructured@2", "'unstructured' is not among filter, pattern"),
        (0, "3x3/filter@4", "rate 4 is not among 1, 2, 2.5"),
    ],
)
def test_illegal_choices_say_why(layer: int, choice: str, reason: str) -> None:
    space = SearchSpace(backbone((8, 1), (16, 2), head=True))
    assert reason in str(space.why_illegal(layer, LayerChoice.parse(choice)))
    texts = ["3x3", "3x3", "fc"]
    texts[layer] = choice
    with pytest.raises(
        SpaceError, match=rf"layer {layer} \({space.layer_names[layer]}\): got .*; nearest legal choice: "
    ):
        space.parse(texts)
    assert not space.is_legal(Architecture(tuple(LayerChoice.parse(text) for text in texts)))


def test_the_reason_for_an_operator_left_out() -> None:
    space = SearchSpace(backbone((8, 1)), operators=(Operator.CONV3X3,))
    assert space.why_illegal(0, LayerChoice(Operator.SKIP)) == "operator 'skip' is not among 3x3"


def test_schemes_fit_operators() -> None:
    space = SearchSpace(backbone((32, 1), stem=32, head=True), schemes=tuple(Scheme))
    schemes: dict[str, set[str]] = {}
    for choice in (*space.choices(0), *space.choices(1)):
        schemes.setdefault(choice.operator.value, set()).add(choice.scheme.value)
    assert schemes == {
        "1x1": {"dense", "filter", "block-based", "unstructured"},
        "3x3": {"dense", "filter", "pattern", "block-punched", "kernel-block", "unstructured"},
        "3x3dw+1x1": {"dense", "filter", "block-based", "unstructured"},
        "1x1+3x3dw+1x1": {"dense", "filter", "block-based", "unstructured"},
        "skip": {"dense"},
        "fc": {"dense", "block-based", "unstructured"},
    }


def test_architectures_of_another_length_and_other_things_are_refused() -> None:
    space = SearchSpace(backbone((8, 1), (8, 1)))
    with pytest.raises(SpaceError, match="has 2 searchable layers, got 1"):
        space.parse(["3x3"])
    with pytest.raises(SpaceError, match="has 2 searchable layers, got 0"):
        space.canonical(Architecture(()))
    with pytest.raises(SpaceError, match="list of 2 layer choices"):
        space.parse("3x3")
    with pytest.raises(SpaceError, match=r"layer 1 \(block1\): unknown operator '3x4', did you mean '3x3'\?"):
        space.parse(["3x3", "3x4"])
    with pytest.raises(SpaceError, match=r"unknown scheme 'filtr', did you mean 'filter'\?"):
        space.parse(["3x3", "3x3/filtr@2"])
    with pytest.raises(SpaceError, match="expected operator/scheme@rate"):
        space.parse(["3x3", "3x3/filter"])
    assert "3x3" not in space and Architecture(()) not in space
    assert not space.is_legal(Architecture(()))


def test_layers_can_be_told_apart() -> None:
    space = SearchSpace(
        backbone((8, 1), (8, 1), head=True),
        operators=(Operator.CONV3X3,),
        rates=(1,),
        layers={"block1": Allowed(operators=(Operator.SKIP,)), "fc": Allowed(rates=(2,))},
    )
    assert [a.to_json() for a in space] == [["3x3", "skip", "fc/block-based@2"]]
