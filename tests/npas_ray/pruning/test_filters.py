from __future__ import annotations

import pytest
import torch

from npas_ray.pruning.filters import filter_mask, filter_scores, top_filters


def test_one_weight_is_scored_by_the_norm_of_its_filters() -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(filter_scores(weight), weight.flatten(1).norm(dim=1))


def test_moving_scale_along_a_channel_changes_no_score() -> None:
    generator = torch.Generator().manual_seed(1)
    expand, depthwise, project = (
        torch.randn(shape, generator=generator) for shape in ((6, 4, 1, 1), (6, 1, 3, 3), (8, 6, 1, 1))
    )
    before = filter_scores(expand, depthwise, consumers=[project])
    scale = torch.tensor([0.1, 10, 3, 1, 7, 0.5])
    after = filter_scores(expand * scale.view(-1, 1, 1, 1), depthwise, consumers=[project / scale.view(1, -1, 1, 1)])
    torch.testing.assert_close(before, after)


def test_a_channel_that_nobody_reads_goes_first() -> None:
    expand, project = torch.ones(4, 2), torch.ones(3, 4)
    expand[2] *= 100
    project[:, 2] = 0
    kept = top_filters(filter_scores(expand, consumers=[project]), 3)
    assert kept.tolist() == [True, True, False, True]
    assert filter_mask(expand, kept).tolist() == [[True] * 2, [True] * 2, [False] * 2, [True] * 2]


def test_weights_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="disagree about the channels: 4, 5"):
        filter_scores(torch.ones(4, 2), consumers=[torch.ones(3, 5)])
    with pytest.raises(ValueError, match="no weight"):
        filter_scores()
    with pytest.raises(ValueError, match="cannot keep 5 of 4"):
        top_filters(torch.ones(4), 5)
