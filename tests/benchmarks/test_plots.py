"""The page is made from results alone; what it says of bars is what the results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import _svg
from benchmarks._network_report import Ratio, bars, print_network, ratio, timings
from benchmarks.plots import write_page

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = {
    "processor": "a processor", "cores": 4, "simd": ["avx2"], "load_1min": 0.5, "system": "Linux", "python": "3.11.7",
    "packages": {"numpy": "2", "ray": None}, "commit": "abc", "taken_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def timing(*rounds_ms: float) -> dict[str, Any]:
    return {"rounds_ms": list(rounds_ms)}


def network(**times: dict[str, Any]) -> dict[str, Any]:
    ours = {"dense": timing(2.0, 3.0), "5x": timing(0.5, 0.7), "5x unfused": timing(1.0, 1.0)}
    peers = {"onnxruntime": timing(4.0, 6.0), "litert": timing(3.0, 3.0)}
    return {
        "network": "mobilenet_v2", "pixels": 224, "target": "x86_64-avx512", "rounds": 2, "macs": 300_000_000,
        "kept_macs": {"dense": 300_000_000, "5x": 60_000_000},
        "timings": {**peers, **ours, **times},
        "relative_errors": {"onnxruntime": 1e-6, "litert": 5e-4, "dense": 1e-6, "5x": 2e-6},
        "absent_peers": {"mnn": "not installed: MNN"}, "profiles": {},
    }  # fmt: skip


def document(name: str, **body: Any) -> str:
    return json.dumps({"schema": 1, "benchmark": name, "arguments": ["--json", "x"], "machine": MACHINE, **body})


def test_a_ratio_is_of_the_best_rounds_and_of_paired_ones() -> None:
    times = timings(network())
    assert ratio(times["litert"], times["dense"]) == Ratio(best=1.5, paired=1.25)


def test_both_kinds_of_a_ratio_must_hold_a_bar_against_the_best_peer() -> None:
    held = {bar.text.split(":")[0]: bar.held for bar in bars(network())}
    assert held == {"relative error at most 0.0001": True, "dense": True, "5x": True}
    (dense,) = [bar for bar in bars(network(litert=timing(3.0, 3.3))) if bar.text.startswith("dense")]
    assert "the best of 2 peers, XNNPACK" in dense.text
    (dense,) = [bar for bar in bars(network(litert=timing(3.0, 1.0))) if bar.text.startswith("dense")]
    assert not dense.held


@pytest.mark.parametrize(
    ("times", "missed"), [({"5x": timing(1.2, 1.2)}, "of ONNX"), ({"5x unfused": timing(0.5, 0.5)}, "fused")]
)
def test_a_missed_bar_says_so(times: dict[str, Any], missed: str) -> None:
    assert any(missed in bar.text and not bar.held for bar in bars(network(**times)))


def test_a_peer_s_inaccuracy_is_not_ours() -> None:
    assert bars(network())[0].held
    wrong = network()
    wrong["relative_errors"]["5x"] = 1e-3
    assert not bars(wrong)[0].held


def test_the_table_names_who_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_network(network())
    printed = capsys.readouterr().out
    assert "left out: MNN: not installed: MNN" in printed
    assert [line.split("  ")[0] for line in printed.splitlines() if line.startswith("ours")] == [
        "ours dense",
        "ours 5x",
    ]


def test_the_page_has_a_chapter_for_every_result_that_is_there(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    peers = {name: {"version": None, "settings": "its best"} for name in ("onnxruntime", "litert", "mnn")}
    (results / "networks.json").write_text(document("networks", peers=peers, results=[network()]))
    (results / "threads.json").write_text(document("threads", cores=4, runs=[{"threads": 1, "ms": {"best": 1.5}}]))
    assert write_page(results, docs) == ["networks", "threads"]
    page = (docs / "performance.md").read_text()
    assert "Left out: MNN: not installed: MNN." in page
    assert "| 1 | 1.5 |" in page
    assert "Not measured yet: `benchmarks/kernels.py`" in page
    for plot in (docs / "performance").iterdir():
        assert f"(performance/{plot.name})" in page
        ElementTree.fromstring(plot.read_text())
    assert write_page(tmp_path, docs) == []


def test_a_benchmark_in_parts_and_figures_that_were_taken_several_times(tmp_path: Path) -> None:
    for part, error in (("digits", 0.01), ("mobile", 0.03)):
        (tmp_path / f"predictor-{part}.json").write_text(document("predictor", spaces={part: {"median_error": error}}))
    (tmp_path / "compile.json").write_text(document("compile", seconds={"cold": [3.5, 3.25, 4.0]}))
    assert write_page(tmp_path, tmp_path) == ["compile", "predictor"]
    page = (tmp_path / "performance.md").read_text()
    assert "| spaces / digits / median_error | 0.01 |" in page and "| spaces / mobile / median_error | 0.03 |" in page
    assert "| seconds / cold | 3.5 (3.25 to 4) |" in page


def test_plots_escape_and_scale() -> None:
    svg = ElementTree.fromstring(_svg.bars("a < b", {"g & h": {"ours": 1.0, "peer": 2.0}}, unit="x", mark=1.0))
    widths = [float(rect.attrib["width"]) for rect in svg.iter(f"{SVG}rect") if rect.attrib["height"] == "12"]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    svg = ElementTree.fromstring(_svg.lines("l", {"a": [(1, 1), (5, 4)]}, axes=("x", "y"), diagonal="rate"))
    assert len(list(svg.iter(f"{SVG}circle"))) == 2
