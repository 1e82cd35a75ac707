from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from npas_ray.errors import InfrastructureError, JournalError, RunError
from npas_ray.journal import Journal
from npas_ray.reports import read_run, text, write_reports
from npas_ray.reports.files import write_text
from npas_ray.search.policy import Status

MakeRun = Callable[..., Path]
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\x1b[31m\u202e"


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page(run_dir: Path) -> Page:
    return Page(write_reports(run_dir).html.read_text(encoding="utf-8"))


def test_candidates_csv_has_everything(make_run: MakeRun) -> None:
    run_dir = make_run()
    table = pd.read_csv(write_reports(run_dir).candidates_csv)
    with Journal.open(run_dir / "journal.sqlite", read_only=True) as journal:
        known = journal.candidates()
    assert list(table["ordinal"]) == list(range(1, 49))
    assert list(table["key"]) == [candidate.key for candidate in known]
    assert list(table["status"]) == [candidate.status for candidate in known]
    done = table[table["status"] == "done"]
    assert list(done["accuracy"]) == [c.accuracy for c in known if c.status is Status.DONE]
    assert done["accuracy_std"].notna().sum() == 2
    assert sorted(done["seeds"].unique()) == [1, 2]
    assert list(done["latency_ms[local]"]) == [c.latency_ms["local"] for c in known if c.status is Status.DONE]
    assert (done["ci_low_ms[local]"] < done["latency_ms[local]"]).all()
    assert not done["emulated[local]"].astype(bool).any()
    over = table[table["status"] == "over-budget"]
    assert over["accuracy"].isna().all()
    assert over["reason"].str.contains("budget 0.08 ms").all()
    layers = [f"block{i}" for i in range(7)]
    assert [list(row) for row in table[layers].itertuples(index=False)] == [c.architecture.to_json() for c in known]


def test_pareto_csv_is_the_front(make_run: MakeRun) -> None:
    run_dir = make_run()
    table = pd.read_csv(write_reports(run_dir).pareto_csv)
    assert list(table["ordinal"]) == [candidate.ordinal for candidate in read_run(run_dir).front("local")]
    assert table["accuracy"].is_monotonic_increasing
    assert table["latency_ms[local]"].is_monotonic_increasing


def test_the_terminal_and_the_page_agree(make_run: MakeRun) -> None:
    run_dir = make_run()
    data = read_run(run_dir)
    assert data.best is not None
    assert data.best.accuracy is not None
    best = f"{100 * data.best.accuracy:.2f} %"
    said = text.results(data, write_reports(run_dir))
    [line] = [line for line in said.splitlines() if line.startswith("  *  ")]
    assert f" {data.best.ordinal} " in line
    assert best in line
    words = page(run_dir).words
    assert f"{best} best accuracy" in words
    assert f"{data.best.latency_ms['local']:.4g} ms its latency on local" in words
    assert "48 candidates: 37 done, 8 over budget, 3 failed" in words


def test_every_candidate_is_on_the_page(make_run: MakeRun) -> None:
    run_dir = make_run()
    found = page(run_dir)
    shown = {value for name, value in found.attributes if name == "data-c"}
    assert shown == {str(ordinal) for ordinal in range(1, 49)}
    assert found.tags.count("svg") == 4  # two charts, each for wide and narrow screens


def test_the_page_needs_nothing_else(make_run: MakeRun) -> None:
    run_dir = make_run()
    found = page(run_dir)
    assert not {"link", "img", "iframe", "object", "base"} & set(found.tags)
    assert not [a for a in found.attributes if a[0] in ("src", "href", "action", "srcset")]
    source = (run_dir / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", source)
    assert "default-src 'none'" in source


def test_hostile_names_stay_text(make_run: MakeRun) -> None:
    run_dir = make_run(model=f"Pixel {HOSTILE}", reason=HOSTILE, emulated=True)
    found = page(run_dir)
    assert found.tags.count("script") == 2  # the data and the program
    assert "img" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in found.words
    assert "{{7*7}}" in found.words
    source = (run_dir / "report.html").read_bytes().decode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", source)
    said = text.results(read_run(run_dir), write_reports(run_dir)) + text.status(read_run(run_dir))
    assert said.replace("\n", "").isprintable()


def test_tips_are_data(make_run: MakeRun) -> None:
    source = write_reports(make_run(reason=HOSTILE)).html.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="tips">(.*?)</script>', source, re.DOTALL)
    assert found is not None
    tips = json.loads(found.group(1))
    assert len(tips) == 48
    assert tips["1"][0].startswith("#1 · ")


def test_emulated_times_are_labelled_wherever_they_are_shown(make_run: MakeRun) -> None:
    run_dir = make_run(model="Pixel 6", emulated=True)
    words = page(run_dir).words
    assert "Emulated device." in words
    assert "its latency on Pixel 6 (emulated)" in words
    assert "latency on Pixel 6 (emulated), ms" in words
    assert "Pixel 6 (emulated), ms" in words
    assert "Pareto front on Pixel 6 (emulated)" in text.results(read_run(run_dir), write_reports(run_dir))
    assert pd.read_csv(run_dir / "candidates.csv")["emulated[Pixel 6]"].dropna().all()
    assert "Emulated device." not in page(make_run("real")).words


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 0},
        {"candidates": 1},
        {"candidates": 9},
        {"budget_ms": 0.0001},
        {"budget_ms": None},
        {"budget_ms": 100.0},
        {"config": {}},
        {"config": {"objective": None, "search": [], "space": {"backbone": 3}}},
    ],
)
def test_runs_at_any_stage_have_reports(make_run: MakeRun, options: dict[str, object]) -> None:
    run_dir = make_run(**options)
    data, paths = read_run(run_dir), write_reports(run_dir)
    assert f"{len(data.candidates)} candidates" in page(run_dir).words
    assert len(pd.read_csv(paths.candidates_csv)) == len(data.candidates)
    assert text.results(data, paths)
    assert text.status(data)
    json.dumps(data.summary(), allow_nan=False)


def test_no_feasible_candidate(make_run: MakeRun) -> None:
    run_dir = make_run(budget_ms=0.0001)
    data = read_run(run_dir)
    assert (data.best, data.front("local"), data.hypervolume("local")) == (None, [], None)
    assert "no candidate was trained within the budget" in text.pareto(data, "local")
    assert "No candidate was trained within the budget." in page(run_dir).words


def test_candidates_under_way_are_shown(make_run: MakeRun) -> None:
    run_dir = make_run(candidates=5)
    with Journal.open(run_dir / "journal.sqlite") as journal:
        known = {candidate.key for candidate in journal.candidates()}
        other = read_run(make_run("other", candidates=8, seed=9)).candidates[-1].architecture
        assert other.key not in known
        journal.propose(other)
    table = pd.read_csv(write_reports(run_dir).candidates_csv)
    assert table["status"].iloc[-1] == "under-way"
    assert read_run(run_dir).summary()["under_way"] == 1


def test_the_final_network_is_told(make_run: MakeRun) -> None:
    run_dir = make_run()
    with Journal.open(run_dir / "journal.sqlite") as journal:
        final = {"ordinal": 31, "test_accuracy": 0.9234, "epochs": 20, "latency_ms": {"local": 0.0712}}
        journal.note("final", final)
    assert "92.34 % shipped network, test set after 20 epochs" in page(run_dir).words
    said = "shipped: candidate #31 after 20 epochs, test accuracy 92.34 %, 0.0712 ms on local"
    assert said in text.results(read_run(run_dir), write_reports(run_dir))
    assert read_run(run_dir).summary()["final"] == final


def test_a_later_session_may_want_more(make_run: MakeRun) -> None:
    run_dir = make_run(candidates=12, wanted=12)
    assert read_run(run_dir).finished
    with Journal.open(run_dir / "journal.sqlite") as journal:
        journal.note("session", {"config": {"search": {"candidates": 20}}})
    assert (read_run(run_dir).wanted, read_run(run_dir).state) == (20, "unfinished")


def test_spreadsheets_run_no_formula(make_run: MakeRun) -> None:
    table = pd.read_csv(write_reports(make_run(reason="=HYPERLINK(1)")).candidates_csv)
    assert set(table[table["status"] == "failed"]["reason"]) == {"'=HYPERLINK(1)"}


def test_csv_survives_any_reason(make_run: MakeRun) -> None:
    reason = 'a, "b"\nc\r\n;'
    content = write_reports(make_run(reason=reason)).candidates_csv.read_bytes().decode()
    table = pd.read_csv(StringIO(content, newline=""))
    assert len(table) == 48
    assert set(table[table["status"] == "failed"]["reason"]) == {reason}


def test_files_are_replaced_whole(make_run: MakeRun) -> None:
    run_dir = make_run()
    first = write_reports(run_dir)
    inode = first.html.stat().st_ino
    write_reports(run_dir)
    assert first.html.stat().st_ino != inode
    assert not list(run_dir.glob(".*.new"))


def test_what_cannot_be_reported(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run at"):
        write_reports(tmp_path / "nowhere")
    run_dir = make_run()
    (run_dir / "report.html").mkdir()
    with pytest.raises(InfrastructureError, match=r"cannot write .*report\.html"):
        write_reports(run_dir)
    (run_dir / "journal.sqlite").write_bytes(b"SQLite format 3\x00" + b"\xff" * 4000)
    with pytest.raises(JournalError, match=re.escape(str(run_dir / "journal.sqlite"))):
        read_run(run_dir)


def test_a_report_that_may_not_be_written(
    ordinary_user: Callable[[], AbstractContextManager[None]], tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    refused = pytest.raises(RunError, match=r"cannot write .*report\.html: Permission denied")
    with ordinary_user(), refused:
        write_text(tmp_path / "report.html", "x")
    tmp_path.chmod(0o700)


def test_what_the_ladder_stopped_is_shown_as_that(make_run: MakeRun) -> None:
    run_dir = make_run(ladder=True)
    table = pd.read_csv(write_reports(run_dir).candidates_csv)
    stopped, done = (table[table["status"] == status] for status in ("stopped", "done"))
    assert len(stopped) and len(done)
    assert set(stopped["epochs"]) == {0} and set(done["epochs"]) == {2}
    assert (stopped["accuracy[0 epochs]"] == stopped["accuracy"]).all() and stopped["accuracy[2 epochs]"].isna().all()
    assert (done["accuracy[2 epochs]"] == done["accuracy"]).all() and (done["accuracy[0 epochs]"] < 0.4).all()
    data = read_run(run_dir)
    assert data.summary()["stopped"] == len(stopped)
    assert f"{len(stopped)} stopped early" in text.counted(data)
    assert all(candidate.status is Status.DONE for candidate in data.front("local"))
    shown = page(run_dir)
    assert "after 0 epochs" in shown.words and "after the fewer epochs that it got" in shown.words
    assert ("data-filter", "stopped") in shown.attributes


def test_a_winner_that_was_lucky_says_so(make_run: MakeRun) -> None:
    run_dir = make_run()
    data = read_run(run_dir)
    lucky = next(c for c in data.done if len(c.best_trained) > 1)
    first, second = (e["accuracy"] for e in lucky.best_trained)
    assert lucky.accuracy == pytest.approx((first + second) / 2) and lucky.accuracy < first
    table = pd.read_csv(write_reports(run_dir).candidates_csv).set_index("key")
    row = table.loc[lucky.key]
    assert row["seeds"] == 2
    assert row["accuracy_in_search"] == pytest.approx(first)
    assert f"2 seeds, search {100 * first:.2f} %" in page(run_dir).words
