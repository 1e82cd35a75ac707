"""The words in which a plan is written: 64 bits each, little-endian. csrc/tape.h reads them."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence


class Tape:
    """Words, one after the other."""

    def __init__(self) -> None:
        self._words = array("q")

    def put(self, *words: int) -> None:
        self._words.extend(words)

    def put_float(self, value: float) -> None:
        self._words.append(float_bits(value))

    def put_text(self, text: str) -> None:
        """Its length in words, then its bytes, at least one zero behind them."""
        data = text.encode()
        data += bytes(8 - len(data) % 8)
        self._words.append(len(data) // 8)
        self._words.frombytes(data)

    def put_integers(self, values: Sequence[int]) -> None:
        """Their number, then two in each word."""
        data = array("i", values)
        if len(data) % 2:
            data.append(0)
        self._words.append(len(values))
        self._words.frombytes(data.tobytes())

    def to_bytes(self) -> bytes:
        if sys.byteorder != "little":
            raise NotImplementedError("plans are written on little-endian machines only")
        return self._words.tobytes()


def float_bits(value: float) -> int:
    """A float32 as the integer of the same bits."""
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return bits
