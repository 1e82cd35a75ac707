"""The candidate that is shipped: its accuracy is what several seeds say, its latency what several sessions say."""

from __future__ import annotations

from typing import Any

from device_farm.measurement.finalists import Believed
from npas_ray.config import SearchConfig
from npas_ray.errors import NoFeasibleCandidate
from npas_ray.journal import Candidate
from npas_ray.networks.lowering import lower
from npas_ray.runs.confirmation import confirm
from npas_ray.runs.evaluation import CANDIDATE_FAULTS
from npas_ray.runs.laboratory import ConductorBook, Laboratory
from npas_ray.runs.progress import Progress
from npas_ray.runs.replication import believed_latencies, in_short, over_budget


def believed_winner(config: SearchConfig, *, lab: Laboratory, conductor: Any, progress: Progress) -> Candidate:
    """The best candidate that keeps the budgets in other sessions and on other phones, too.

    Each that was measured again has a note "finalist" in the journal. Raises NoFeasibleCandidate, FarmError.
    """
    import ray

    rejected: dict[str, str] = {}
    while True:
        try:
            winner = confirm(lab, ConductorBook(conductor), without=rejected)
        except NoFeasibleCandidate:
            if not rejected:
                raise
            last = "; ".join(list(rejected.values())[-3:])
            raise NoFeasibleCandidate(f"no candidate kept the budgets when it was measured again; {last}") from None
        believed, over = _measured_again(config, winner, lab=lab)
        latencies = {model: in_short(found) for model, found in believed.items()}
        finalist = {"key": winner.key, "ordinal": winner.ordinal, "rejected": over, "latencies": latencies}
        ray.get(conductor.note.remote("finalist", finalist))
        if over is None:
            return winner
        rejected[winner.key] = f"#{winner.ordinal}: {over}"
        progress.log(f"candidate #{winner.ordinal} is not shipped: measured again, {over}")


def _measured_again(
    config: SearchConfig, candidate: Candidate, *, lab: Laboratory
) -> tuple[dict[str, Believed], str | None]:
    """Its latencies, and what speaks against shipping it. Raises FarmError."""
    graph = lower(lab.backbone, candidate.architecture, block_height=lab.block_height, tap_unit=lab.tap_unit)
    effort = config.measurement.finalists.effort()
    try:
        believed = believed_latencies(lab.farm, graph, models=lab.models, effort=effort)
    except CANDIDATE_FAULTS as error:  # a phone more, and it fails there
        return {}, f"{type(error).__name__}: {error}"
    return believed, over_budget(believed, lab.objective)
