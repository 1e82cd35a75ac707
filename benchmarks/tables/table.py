"""A table of architectures that were really trained and measured, and what it answers for any architecture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables.features import Features, Floats
from benchmarks.tables.spaces import SPACES
from benchmarks.tables.surrogate import Surrogate, expit, logit
from npas_ray.search.encoding import IntArray
from npas_ray.space.choices import LayerChoice
from npas_ray.space.search_space import SearchSpace

FOLDER = Path(__file__).resolve().parent
#: the training whose accuracy the benchmark searches for, in epochs
EPOCHS = 1
_PART = 4096


@dataclass(frozen=True)
class Noise:
    """Standard deviations: of one training's accuracy and of the surrogate's error (logits), of a latency (share)."""

    evaluation: float
    surrogate: float
    latency: float


@dataclass(frozen=True)
class Table:
    """Rows are those of the encoding of `space`; NaN is what was not evaluated.

    Attributes:
        rows: architectures `[n, L]`.
        evaluations: accuracies `[n, k]` by (epochs, seed) of `columns`.
        latency_ms: measured `[n]`.
    """

    name: str
    space: SearchSpace
    rows: IntArray
    columns: tuple[tuple[int, int], ...]
    evaluations: Floats
    latency_ms: Floats
    accuracy_surrogate: Surrogate
    latency_surrogate: Surrogate
    noise: Noise

    @cached_property
    def features(self) -> Features:
        return Features(self.space)

    def accuracy(self, rows: IntArray) -> Floats:
        """What trainings of EPOCHS epochs give on average `[m]`.

        Of an architecture in the table its evaluations' mean, drawn towards the surrogate by as much as the seeds'
        luck asks for: the best of thousands of single trainings would else be the luckiest.
        """
        out = self._answers(self.accuracy_surrogate, rows)
        mean, count = self._means
        here = self._places(rows)
        known = np.flatnonzero(here >= 0)
        known = known[count[here[known]] > 0]
        n, own = count[here[known]], logit(mean[here[known]])
        trust = n / (n + (self.noise.evaluation / self.noise.surrogate) ** 2)
        out[known] = expit(trust * own + (1 - trust) * logit(out[known]))
        return out

    def latency(self, rows: IntArray) -> Floats:
        """In ms `[m]`: measured, or the surrogate's where it is not."""
        out = self._answers(self.latency_surrogate, rows)
        here = self._places(rows)
        known = np.flatnonzero(here >= 0)
        measured = self.latency_ms[here[known]]
        out[known] = np.where(np.isfinite(measured), measured, out[known])
        return out

    def __contains__(self, row: IntArray) -> bool:
        return row.astype(np.int64).tobytes() in self._index

    def _answers(self, surrogate: Surrogate, rows: IntArray) -> Floats:
        """In parts that fit into memory."""
        parts = np.array_split(rows, max(1, len(rows) // _PART))
        return np.concatenate([surrogate(self.features, part) for part in parts])

    @cached_property
    def _index(self) -> dict[bytes, int]:
        return {row.tobytes(): place for place, row in enumerate(self.rows)}

    def _places(self, rows: IntArray) -> IntArray:
        return np.array([self._index.get(row.tobytes(), -1) for row in rows.astype(np.int64)], dtype=np.int64)

    @cached_property
    def _means(self) -> tuple[Floats, Floats]:
        """Mean accuracy `[n]` over the seeds of EPOCHS epochs (0 without any), and their number."""
        chosen = self.evaluations[:, [epochs == EPOCHS for epochs, _ in self.columns]]
        count = np.isfinite(chosen).sum(axis=1).astype(np.float64)
        return np.nansum(chosen, axis=1) / np.maximum(count, 1), count


def save(table: Table, facts: dict[str, Any], folder: Path = FOLDER) -> None:
    """NAME.npz (arrays) and NAME.json (what they mean and where they are from)."""
    arrays = {
        "rows": table.rows.astype(np.uint8),
        "accuracy": np.where(np.isfinite(table.evaluations), np.rint(1000 * table.evaluations), -1).astype(np.int16),
        "latency_ms": table.latency_ms.astype(np.float32),
        **table.accuracy_surrogate.arrays("accuracy."),
        **table.latency_surrogate.arrays("latency."),
    }
    np.savez_compressed(folder / f"{table.name}.npz", **arrays)  # type: ignore[arg-type]
    choices = [[str(choice) for choice in of] for of in table.features.encoding.choices]
    document = facts | {
        "name": table.name,
        "space": repr(table.space),
        "columns_epochs_seed": [list(column) for column in table.columns],
        "noise": vars(table.noise),
        "choices": choices,
    }
    (folder / f"{table.name}.json").write_text(json.dumps(document, indent=1) + "\n")


def load(name: str, folder: Path = FOLDER) -> Table:
    """Raises ValueError if the space has lost choices since the table was made."""
    document = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    space = SPACES[name].space
    columns = tuple((epochs, seed) for epochs, seed in document["columns_epochs_seed"])
    thousandths = arrays["accuracy"].astype(np.float64)
    return Table(
        name=name,
        space=space,
        rows=_rows(arrays["rows"], document["choices"], space, name),
        columns=columns,
        evaluations=np.where(thousandths >= 0, thousandths / 1000, np.nan),
        latency_ms=arrays["latency_ms"].astype(np.float64),
        accuracy_surrogate=Surrogate.from_arrays(arrays, "accuracy."),
        latency_surrogate=Surrogate.from_arrays(arrays, "latency."),
        noise=Noise(**document["noise"]),
    )


def _rows(kept: IntArray, texts: list[list[str]], space: SearchSpace, name: str) -> IntArray:
    """Rows of today's encoding: choices may have changed places since. Surrogates know them by today's features."""
    columns = []
    for layer, of_layer in enumerate(texts):
        today = {choice: place for place, choice in enumerate(space.choices(layer))}
        try:
            places = np.array([today[LayerChoice.parse(text)] for text in of_layer])
        except KeyError as error:
            raise ValueError(f"table {name!r}: layer {layer} has no choice {error.args[0]} any more") from None
        if len(today) != len(places):
            raise ValueError(
                f"table {name!r}: layer {layer} has {len(today)} choices, had {len(places)}; build it anew"
            )
        columns.append(places[kept[:, layer]])
    return np.stack(columns, axis=1).astype(np.int64)
