"""Sums of many products in a type of few digits: parts of bounded length, which float32 adds up.

A float16 sum of n products has a relative error that grows with the root of n. In parts, it grows with the root of
their length, and what a part costs (two conversions, two additions, a load and a store a vector) is spread over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import INDEX, Emitter, loop, sequence, tile_count


def sum_in_parts(
    e: Emitter,
    totals: Sequence[Any],
    sums: Sequence[Any],
    *,
    begin: Any,
    end: Any,
    longest: int,
    part: Callable[[Any, Any], list[Any]],
) -> list[Any]:
    """Adds to the wide accumulators `totals` the expressions `sums`, which part(first, last) leaves for some terms.

    Parts of begin .. end are as long as one another, as nearly as may be, and no longer than `longest`.
    """
    parts, length = e.integer("parts"), e.integer("length")

    def add_part(index: Any) -> Any:
        first = begin + index * length
        return sequence(
            part(first, tirx.Min(first + length, end)),
            [
                e.wide.store(total, e.wide.load(total) + e.wide.converted(value))
                for total, value in zip(totals, sums, strict=True)
            ],
        )

    return [
        tirx.Bind(parts, tile_count(end - begin, longest)),
        tirx.Bind(length, tirx.floordiv(end - begin + parts - 1, tirx.Max(parts, tirx.IntImm(INDEX, 1)))),
        loop("part", parts, add_part),
    ]
