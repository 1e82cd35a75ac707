"""What a file of this folder implements."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A network in one engine, ready on one thread.

    Only `run` is timed: from an image in the engine's own memory and layout to an output there.
    """

    def __init__(self, model: Path, scratch: Path) -> None:
        """Prepare the ONNX model of one NCHW image; `scratch` is an empty folder for converted files."""

    def load(self, image: NDArray[np.float32]) -> None:
        """Take one image [1, channels, height, width]."""

    def run(self) -> object:
        """One inference."""

    def output(self) -> NDArray[np.float32]:
        """What the last run gave, in NCHW or as [1, classes]."""
