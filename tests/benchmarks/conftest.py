from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """ONNX Runtime and torch flush them for our benchmarks, and leave the calling thread so: other tests need them."""
    yield
    torch.set_flush_denormal(False)
