"""All reports of a run, written where the run is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from npas_ray.reports.files import write_text
from npas_ray.reports.run_data import read_run


@dataclass(frozen=True)
class ReportPaths:
    """Where the reports lie."""

    candidates_csv: Path
    pareto_csv: Path
    html: Path

    def to_json(self) -> dict[str, str]:
        return {name: str(path) for name, path in vars(self).items()}


def write_reports(run_dir: Path) -> ReportPaths:
    """Builds candidates.csv, pareto.csv and report.html from the journal, of a run at any stage; each is replaced
    whole.

    Raises RunError (no run, not writable), JournalError, InfrastructureError (the disk).
    """
    from npas_ray.reports import html, tables  # pandas and Jinja2, which `npas status` can do without

    data = read_run(run_dir)
    paths = ReportPaths(run_dir / "candidates.csv", run_dir / "pareto.csv", run_dir / "report.html")
    write_text(paths.candidates_csv, tables.to_csv(tables.candidates_table(data)))
    write_text(paths.pareto_csv, tables.to_csv(tables.pareto_table(data)))
    write_text(paths.html, html.render(data))
    return paths
