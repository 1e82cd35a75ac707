"""Pieces, each lowered alone, against the whole candidate as the compiler lowers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from device_farm.calibration.steps import StepShape, describe
from device_farm.compiler import AVX2, AVX512, NEON, Target
from npas_ray.calibration.pieces import Pieces
from npas_ray.networks.backbone import DIGITS, Backbone, make_backbone
from npas_ray.networks.lowering import lower
from npas_ray.space.search_space import SearchSpace

ODD = make_backbone(  # channels that fill no vector, odd maps, strides that do not divide, a searchable head
    "odd",
    input_shape=(3, 37, 29),
    stem=(20, 2),
    blocks=((20, 1), (36, 2), (36, 1), (36, 1), (50, 2), (50, 1)),
    classes=11,
    expansion=3,
    searchable_head=True,
)
LARGE = make_backbone(  # fused blocks, a shared arena
    "large", input_shape=(3, 96, 96), stem=(32, 2), blocks=((32, 1), (64, 2), (64, 1), (64, 1)), classes=10, expansion=6
)
HEAD_ONLY = make_backbone("head", input_shape=(3, 8, 8), stem=(16, 2), blocks=(), classes=10, searchable_head=True)


def content(steps: Iterable[StepShape]) -> Counter[StepShape]:
    return Counter(steps)


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=lambda target: target.name)
@pytest.mark.parametrize("backbone", [DIGITS, ODD, LARGE, HEAD_ONLY], ids=lambda backbone: backbone.name)
def test_the_pieces_of_a_candidate_are_its_steps(backbone: Backbone, target: Target) -> None:
    space, pieces = SearchSpace(backbone), Pieces(backbone, target, target.block_height)
    rng = np.random.default_rng(7)
    for _ in range(12):
        architecture = space.sample(rng)
        whole = describe(lower(backbone, architecture, block_height=target.block_height), target)
        assert content(pieces.candidate(architecture)) == content(whole), architecture.to_json()


def test_a_skipped_block_changes_who_reads() -> None:
    space, pieces = SearchSpace(DIGITS), Pieces(DIGITS, AVX512, 32)
    texts = ["3x3", "skip", "1x1", "3x3", "skip", "3x3dw+1x1", "skip"]
    found = pieces.of(space.parse(texts))
    assert [piece.reader for piece in found] == [(3, 1), (1, 1), (1, 1), (3, 2), (3, 1), (3, 1), None, None, None]
    assert pieces.steps(found[2]) == ()


def test_a_piece_is_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space, pieces = SearchSpace(DIGITS), Pieces(DIGITS, AVX512, 32)
    architecture = space.sample(np.random.default_rng(0))
    before = list(pieces.candidate(architecture))
    monkeypatch.setattr("npas_ray.calibration.pieces.lower", None)
    assert list(pieces.candidate(architecture)) == before
