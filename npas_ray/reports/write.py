"""All reports of a run, written where the run is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from npas_ray.reports.files import write_text
from npas_ray.reports.run_data import RunData, read_run


@dataclass(frozen=True)
class ReportPaths:
    """Where the reports lie."""

    candidates_csv: Path
    pareto_csv: Path
    html: Path
    baselines_csv: Path

    def to_json(self) -> dict[str, str]:
        return {name: str(path) for name, path in vars(self).items()}


def write_reports(run_dir: Path, data: RunData | None = None) -> ReportPaths:
    """Builds candidates.csv, pareto.csv, baselines.csv and report.html from the journal, of a run at any stage; each is
    replaced whole. `data` is the run, if it was read already.

    Raises RunError (no run, not writable), JournalError, InfrastructureError (the disk).
    """
    from npas_ray.reports import html, tables  # pandas and Jinja2, which `npas status` can do without

    data = read_run(run_dir) if data is None else data
    paths = ReportPaths(*(run_dir / name for name in ("candidates.csv", "pareto.csv", "report.html", "baselines.csv")))
    write_text(paths.candidates_csv, tables.to_csv(tables.candidates_table(data)))
    write_text(paths.pareto_csv, tables.to_csv(tables.pareto_table(data)))
    write_text(paths.baselines_csv, tables.to_csv(tables.baselines_table(data)))
    write_text(paths.html, html.render(data))
    return paths
