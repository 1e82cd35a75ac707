"""What a run found: tables, a page and a terminal's text, from its journal alone."""

from npas_ray.reports.run_data import RunData, read_run
from npas_ray.reports.write import ReportPaths, write_reports

__all__ = ["ReportPaths", "RunData", "read_run", "write_reports"]
