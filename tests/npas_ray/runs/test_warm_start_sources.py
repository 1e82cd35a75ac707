"""What a search may begin with: runs, candidates of a run, lists; and what is said of those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from npas_ray.config import SearchConfig
from npas_ray.errors import RunError
from npas_ray.journal import Journal
from npas_ray.reports import write_reports
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import make_space
from npas_ray.runs.warm_start import WarmStart, check_warm_start, gather
from npas_ray.runs.warm_start_sources import read_source
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture
from npas_ray.testing.earlier_runs import config_with, dense_ms


def gathered(config: SearchConfig, other: Path) -> WarmStart:
    here = {"local": dense_ms()}
    return gather(config, own_path=other / "no", space=make_space(config), objective=Objective(), dense=here)


def test_keys_of_a_run(other: Path) -> None:
    with Journal.open(other / "journal.sqlite", read_only=True) as journal:
        some = [candidate for candidate in journal.candidates() if candidate.status is Status.DONE][3:6][::-1]
    config = config_with({"run": str(other), "keys": [candidate.key for candidate in some]})
    found = gathered(config, other)
    assert list(found.start_with) == [candidate.architecture for candidate in some]
    assert len(found.prior) == 3
    wrong = some[0].key[:-1] + ("0" if some[0].key[-1] != "0" else "1")
    with pytest.raises(RunError, match=f"has no candidate '{wrong}'; did you mean '{some[0].key}'"):
        gathered(config_with({"run": str(other), "keys": [wrong]}), other)


def test_lists_as_reports_export_them(other: Path, tmp_path: Path) -> None:
    from npas_ray.reports import read_run

    paths, data = write_reports(other), read_run(other)
    names = make_space(config_with()).layer_names
    front = [candidate.architecture for candidate in data.front("local")]

    def read(path: Path) -> list[Architecture]:
        return [found.architecture for found in read_source(path, is_run=False, layer_names=names).found]

    assert read(paths.pareto_csv) == front[::-1]  # best first
    assert len(read(paths.candidates_csv)) == 48
    (tmp_path / "summary.json").write_text(json.dumps(data.summary()))
    assert set(read(tmp_path / "summary.json")) == set(front)
    (tmp_path / "list.json").write_text(json.dumps([a.to_json() for a in front]))
    assert read(tmp_path / "list.json") == front
    (tmp_path / "best.json").write_text(json.dumps({"backbone": "digits", "layers": front[0].to_json()}))
    assert read(tmp_path / "best.json") == front[:1]


def test_what_a_list_cannot_mean_is_said(tmp_path: Path) -> None:
    config, path = config_with(), tmp_path / "list.json"
    path.write_text(json.dumps([["3x3"] * 7, ["3x4"] * 7, "3x3", {"architecture": ["skip"] * 6}, 3, None]))
    found = gather(
        config_with({"architectures": str(path)}),
        own_path=tmp_path,
        space=make_space(config),
        objective=Objective(),
        dense={},
    )
    assert len(found.start_with) == 1
    assert not found.prior
    assert found.said[0].startswith(
        f"1 of 6 architectures of {path} fit this space; 1 has 6 layers instead of 7, 4 can"
    )
    assert "first item 2: '3x4' is not a valid Operator" in found.said[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column 'block0'"),
        (b"\xff\xfe\x00", "is no list of architectures"),
        (b"[1, 2", "is no list of architectures"),
        (b'{"a": 1}', "an object with the keys 'a'"),
        (b"a,b\n1,2\n", "no column 'block0'"),
        (None, "cannot read the list"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "list"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=said) as caught:
        check_warm_start(
            config_with({"architectures": str(path)}), RunDirectory(tmp_path / "new"), make_space(config_with())
        )
    assert str(path) in str(caught.value)


def test_a_run_that_is_missing_or_damaged(other: Path, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        check_warm_start(config_with({"run": str(path)}), RunDirectory(tmp_path / "n"), make_space(config_with()))

    with pytest.raises(RunError, match=r"there is no run at .*othr; did you mean 'other'"):
        check(other.with_name("othr"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="is not a run"):
        check(tmp_path / "empty")
    journal = other / "journal.sqlite"
    journal.write_bytes(b"SQLite format 3\0" + bytes(4096))
    with pytest.raises(RunError, match=r"the run .*other cannot be read: .*leave it out"):
        check(other)
