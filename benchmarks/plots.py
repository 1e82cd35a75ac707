"""docs/performance.md and its plots, from whatever JSON lies in benchmarks/results. Nothing is measured here.

    python benchmarks/plots.py [--results DIR] [--docs DIR]

A chapter appears where its result is; the text around them is benchmarks/pages/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.pages import kernels, networks, plain
from benchmarks.pages.markdown import Chapter

HERE = Path(__file__).resolve().parent
CHAPTERS: dict[str, Callable[[Mapping[str, Any]], Chapter]] = {  # by result, in the order of the page
    "networks": networks.chapter,
    "kernels": kernels.chapter,
    "kept_planes": partial(
        plain.chapter,
        title="Blocks of 8 filters: activations that stay planes",
        words="Whole networks in blocks of 8 whose activations stay planes between 1x1 layers, beside the same ones "
        "turned back to NHWC behind every layer. Single layers in such a chain: [neon.md](neon.md).",
    ),
    "threads": partial(plain.chapter, title="Threads", words="The runner's own pool on 1, 2 and 4 threads."),
    "compile": partial(plain.chapter, title="Compile time", words="From a network to an executable; link included."),
    "predictor": partial(
        plain.chapter,
        title="Latency predictor",
        words="Fitted by `npas calibrate` to a design, judged on candidates that it has not seen. Errors, ranks "
        "and coverage are of those whose measurement was quiet; `within_10_percent_of_all` counts all.",
    ),
    "neon": partial(
        plain.chapter,
        title="ARM, modelled",
        words="**A model**, no measurement: llvm-mca's share of peak of the inner loops; no ARM hardware was at hand.",
    ),
}


def write_page(results: Path, docs: Path) -> list[str]:
    """Write the page; returns the names of its chapters. A result that is not there is named in the page."""
    documents: dict[str, list[dict[str, Any]]] = {
        name: [json.loads(path.read_text()) for path in found]
        for name in CHAPTERS
        if (found := _results(results, name))
    }
    if {"networks", "kernels"} <= documents.keys():  # a network's share is of the peak that the layers' run measured
        peak = max(layer["peak_gflops"] for document in documents["kernels"] for layer in document["results"])
        for document in documents["networks"]:
            document["peak_gflops"] = peak
    chapters = [CHAPTERS[name](document) for name, found in documents.items() for document in found]
    text = [(HERE / "pages" / "performance.md").read_text().strip(), *[made.text for made in chapters]]
    if missing := [name for name in CHAPTERS if name not in documents]:
        text.append("Not measured yet: " + ", ".join(f"`benchmarks/{name}.py`" for name in missing) + ".")
    (docs / "performance.md").write_text("\n\n".join(text) + "\n")
    folder = docs / "performance"
    folder.mkdir(exist_ok=True)
    for made in chapters:
        for name, svg in made.plots.items():
            (folder / name).write_text(svg)
    return list(documents)


def _results(folder: Path, name: str) -> list[Path]:
    """Of one benchmark: `name.json`, or several `name-part.json`."""
    return [path for path in (folder / f"{name}.json", *sorted(folder.glob(f"{name}-*.json"))) if path.exists()]


def main() -> int:
    options = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    options.add_argument("--results", type=Path, default=HERE / "results")
    options.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    arguments = options.parse_args()
    print(f"{arguments.docs / 'performance.md'}: {', '.join(write_page(arguments.results, arguments.docs))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
