"""What a warm start may come from: the journal of an earlier run, or a file with a list of architectures.

Files are what reports export and what is easily written by hand:

- JSON: a list of architectures, each a list of layer choices or an object with "architecture" (or "layers") and perhaps
  "accuracy"; or the object that `npas report --json` prints, of which the best and the fronts count; or the
  architecture.json of a shipped network.
- CSV: a column for each layer, named as in candidates.csv and pareto.csv, and perhaps a column "accuracy".
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npas_ray.config import SearchConfig
from npas_ray.config.words import did_you_mean, printable
from npas_ray.errors import ConfigError, JournalError, RunError
from npas_ray.journal import Candidate, Journal
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import DENSE
from npas_ray.search.policy import Status
from npas_ray.space.choices import Architecture

MAX_BYTES = 64 * 1024 * 1024  # of a file


@dataclass(frozen=True)
class Found:
    """One candidate of a source, as far as the source knew it."""

    architecture: Architecture
    rungs: Mapping[int, float] = field(default_factory=dict)  # accuracy by epochs of training
    latency_ms: Mapping[str, float] = field(default_factory=dict)  # by device model
    latency_ci_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    stated: float | None = None  # accuracy that a list gives, of unknown origin

    @property
    def accuracy(self) -> float | None:
        """After the most epochs; for its rank among its like."""
        return self.rungs[max(self.rungs)] if self.rungs else self.stated


@dataclass(frozen=True)
class Source:
    """Candidates that a search may begin with. What a list does not know is None or empty."""

    name: str  # as the configuration calls it
    found: tuple[Found, ...]
    unreadable: tuple[str, ...] = ()  # of a list: what is no architecture, and why
    config: SearchConfig | None = None  # of the run that they are of
    dense: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # measurement of the dense network, by model
    chosen: bool = False  # somebody chose them one by one: all are to be measured


def read_source(path: Path, *, is_run: bool, keys: Sequence[str] = (), layer_names: Sequence[str]) -> Source:
    """The candidates of a run, of some keys of a run, or of a list. Raises RunError, which names the path."""
    return _read_run(path, keys) if is_run else _read_list(path, layer_names)


def _read_run(path: Path, keys: Sequence[str]) -> Source:
    where = printable(str(path))
    try:
        run = RunDirectory.existing(path)
        with Journal.open(run.journal, read_only=True) as journal:
            config = SearchConfig.from_json(journal.config, name=str(run.journal))
            candidates = journal.candidates()
            dense = {data["model"]: data["measurement"] for _, _, _, data in journal.events(DENSE)}
    except RunError as error:
        raise RunError(f"search.warm_start: {error}{_sibling(path)}") from error
    except (JournalError, ConfigError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"search.warm_start: the run {where} cannot be read: {reason}; leave it out of the configuration"
        ) from error
    if keys:
        by_key = {candidate.key: candidate for candidate in candidates}
        for key in keys:
            if key not in by_key:
                hint = did_you_mean(key, by_key)
                raise RunError(f"search.warm_start: {where} has no candidate {printable(key)!r}{hint}")
        candidates = [by_key[key] for key in keys]
    known = [_found(c, config) for c in candidates if keys or c.status not in (None, Status.FAILED)]
    return Source(where, tuple(known), config=config, dense=dense, chosen=bool(keys))


def _found(candidate: Candidate, config: SearchConfig) -> Found:
    by_epochs: dict[int, list[float]] = {}
    for evaluation in candidate.evaluations:  # the first journals do not say for how many epochs
        by_epochs.setdefault(int(evaluation.get("epochs", config.training.epochs)), []).append(evaluation["accuracy"])
    return Found(
        candidate.architecture,
        {epochs: sum(values) / len(values) for epochs, values in sorted(by_epochs.items())},
        candidate.latency_ms,
        {m: (v["ci_low_ms"], v["ci_high_ms"]) for m, v in candidate.measurements.items() if "ci_low_ms" in v},
    )


def _sibling(path: Path) -> str:
    try:
        runs = [entry.name for entry in path.parent.iterdir() if RunDirectory(entry).journal.is_file()]
    except OSError:
        return ""
    return did_you_mean(path.name, runs)


# --- lists ---------------------------------------------------------------------------------------------------------


def _read_list(path: Path, layer_names: Sequence[str]) -> Source:
    where = printable(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RunError(f"search.warm_start: cannot read the list {where}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise RunError(f"search.warm_start: {where} is larger than {MAX_BYTES // 2**20} MiB; is it a list?")
    try:
        text = content.decode("utf-8-sig")
        is_json = text.lstrip()[:1] in ("[", "{")
        items = list(_from_json(json.loads(text)) if is_json else _from_csv(text, layer_names))
    except (ValueError, csv.Error) as error:  # not UTF-8, not JSON, not a list
        raise RunError(
            f"search.warm_start: {where} is no list of architectures: {error}; expected JSON, a list of lists of layer"
            f' choices such as ["3x3/filter@2", "skip"], or a CSV file as reports write it'
        ) from error
    found, unreadable = [], []
    for place, layers, accuracy in items:
        try:
            found.append(Found(Architecture.from_json(layers), stated=_accuracy(accuracy)))
        except ValueError as error:
            unreadable.append(f"{place}: {error}")
    if any(candidate.stated is not None for candidate in found):
        found.sort(key=lambda candidate: -1.0 if candidate.stated is None else -1.0 - candidate.stated)
    return Source(where, tuple(found), tuple(unreadable), chosen=True)


_Item = tuple[str, Any, Any]  # place, layers, accuracy


def _from_json(data: Any) -> Iterator[_Item]:
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield _item(f"item {index + 1}", item)
    elif "layers" in data or "architecture" in data:
        yield _item("the architecture", data)
    elif "best" in data or "front" in data:
        fronts = data.get("front")
        of_fronts = [item for front in (fronts.values() if isinstance(fronts, dict) else ()) for item in front]
        for index, item in enumerate([*([data["best"]] if data.get("best") else []), *of_fronts]):
            yield _item(f"candidate {index + 1}", item)
    else:
        raise ValueError(f"an object with the keys {', '.join(map(repr, list(data)[:5])) or 'none'}")


def _item(place: str, item: Any) -> _Item:
    if isinstance(item, Mapping):
        return place, item.get("architecture", item.get("layers")), item.get("accuracy")
    return place, item, None


def _from_csv(text: str, layer_names: Sequence[str]) -> Iterator[_Item]:
    rows = csv.DictReader(io.StringIO(text), strict=True)
    missing = [name for name in layer_names if name not in (rows.fieldnames or ())]
    if missing:
        raise ValueError(f"it has no column {', '.join(map(repr, missing))}; a column for each layer is needed")
    for row in rows:
        yield f"line {rows.line_num}", [row[name] for name in layer_names], row.get("accuracy")


def _accuracy(value: Any) -> float | None:
    try:
        accuracy = float(value)
    except (TypeError, ValueError):
        return None
    return accuracy if math.isfinite(accuracy) else None
