"""Whether a journal can be searched on: nothing missing in its middle, nothing in it that no search writes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from npas_ray.errors import DamagedJournal, InvalidObservation
from npas_ray.journal import Candidate, Journal
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.search_space import SearchSpace

_WAY_OUT = "restore it from a copy, or start a new run that learns from this one (search.warm_start)"


def check_journal(journal: Journal, space: SearchSpace, models: Sequence[str]) -> list[Candidate]:
    """The candidates of a journal, from which a policy can be rebuilt as it was.

    Raises DamagedJournal, in one line, for the first thing that is wrong: rows that are missing, a candidate of another
    space, a result that is not whole or cannot be believed.
    """
    candidates = journal.candidates()
    problem = _gap(candidates) or next(filter(None, (_wrong(c, space, models) for c in candidates)), None)
    if problem:
        raise DamagedJournal(f"{journal.path} is damaged: {problem}; {_WAY_OUT}")
    return candidates


def _gap(candidates: Sequence[Candidate]) -> str | None:
    """Proposals and conclusions are counted 1, 2, 3, ...: the order in which the policy said and heard them."""
    proposals = [candidate.ordinal for candidate in candidates]
    conclusions = sorted(candidate.conclusion or 0 for candidate in candidates if candidate.status is not None)
    for what, found in (("proposal", proposals), ("conclusion", conclusions)):
        for expected, number in enumerate(found, start=1):
            if number != expected:
                return f"{what} {expected} is missing before {what} {number}"
    return None


def _wrong(candidate: Candidate, space: SearchSpace, models: Sequence[str]) -> str | None:
    who = f"candidate #{candidate.ordinal}"
    if candidate.architecture not in space:
        return f"{who}, {candidate.architecture.to_json()}, is not in the space of the run's configuration"
    if candidate.status is None:
        return None
    missing = [model for model in models if model not in candidate.measurements]
    if missing and candidate.status in (Status.DONE, Status.STOPPED):
        return f"{who} is {candidate.status}, but has no latency on {', '.join(map(repr, missing))}"
    try:
        Objective().check(candidate.observation())
    except (InvalidObservation, KeyError, TypeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        return f"{who}: {said}"
    return None
