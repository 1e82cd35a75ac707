from __future__ import annotations

import subprocess
import sys

import pytest

from npas_ray.pruning.counts import block_heights, kept_pattern_channels, kept_taps, kept_units
from npas_ray.space.choices import Scheme


def test_counts_by_hand() -> None:
    assert kept_units(9, 2) == 4  # halves go to even
    assert kept_units(4, 10) == 1
    assert kept_pattern_channels(8, 2.25) == 8
    assert kept_pattern_channels(64, 5) == 29
    assert block_heights(33, 16) == (16, 16, 1)
    assert kept_taps((33, 64, 3, 3), scheme=Scheme.BLOCK_PUNCHED, rate=5, block_height=16) == (115,) * 3
    assert kept_taps((33, 64, 3, 3), scheme=Scheme.PATTERN, rate=5, block_height=16) == (116,) * 3
    assert kept_taps((33, 64, 3, 3), scheme=Scheme.FILTER, rate=2, block_height=16) == (576,)
    assert kept_taps((10, 128), scheme=Scheme.BLOCK_BASED, rate=3, block_height=8) == (43, 43)
    assert kept_taps((10, 128), scheme=Scheme.DENSE, rate=1, block_height=8) == (128, 128)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2\.25 or more, got 2"):
        kept_taps((8, 8, 3, 3), scheme=Scheme.PATTERN, rate=2, block_height=8)
    with pytest.raises(ValueError, match="3x3 kernels"):
        kept_taps((8, 8), scheme=Scheme.PATTERN, rate=3, block_height=8)


def test_the_space_and_the_counts_do_not_load_torch() -> None:
    code = "import sys, npas_ray.space.search_space, npas_ray.space.labelled_graph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
