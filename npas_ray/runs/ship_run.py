"""Ships a candidate of a run that has ended, such as another member of its front, without searching again."""

from __future__ import annotations

from pathlib import Path

from npas_ray.config import SearchConfig
from npas_ray.errors import InfrastructureError
from npas_ray.journal import Journal
from npas_ray.runs.devices import settled
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.progress import Progress
from npas_ray.runs.ray_session import in_a_line, prepare_ray
from npas_ray.runs.reach import trained_candidate


def ship_run(run_dir: Path, *, candidate: int | None, epochs: int | None, progress: Progress) -> None:
    """Trains candidate number `candidate` in full and leaves it in `best/`; None: the one that the search would ship.

    `epochs` is for how long, as the run's last session says if None. What lay in `best/` is replaced; its training is
    not kept, its architecture is in the journal.

    Raises RunError (no such run or candidate, in use by another process), InfrastructureError, FarmError.
    """
    run = RunDirectory.existing(run_dir)
    with run.locked():
        config = settled(_config(run, epochs))
        if candidate is not None:
            with Journal.open(run.journal, read_only=True) as journal:
                trained_candidate(journal.candidates(), candidate)  # before anything is started
        prepare_ray()
        from ray.exceptions import RayError

        from npas_ray.runs.shipping import ship
        from npas_ray.runs.staff import staff

        try:
            with staff(config, run, progress) as (lab, conductor):
                ship(config, run, lab=lab, conductor=conductor, progress=progress, chosen=candidate)
        except RayError as error:
            raise InfrastructureError(f"Ray failed: {in_a_line(error)}") from error


def _config(run: RunDirectory, epochs: int | None) -> SearchConfig:
    """That of the last session, with the length of the final training. Raises ConfigError."""
    with Journal.open(run.journal, read_only=True) as journal:
        sessions = [data["config"] for _, _, _, data in journal.events("session")]
        data = sessions[-1] if sessions else journal.config
    if epochs is not None:
        data = data | {"training": data.get("training", {}) | {"final_epochs": epochs}}
    return SearchConfig.from_json(data, name=str(run.journal))
