"""Several sessions, several phones -> one latency that is believed, and what to measure next. Pure.

A random-effects model with one nested level: latency = model + phone + session. Its two variances come from sums of
squares (method of moments), shrunk towards experience that counts as `Experience.weight` further observations, so that
two sessions say little more than one, and ten speak for themselves. Intervals are Student's t, each variance with its
own degrees of freedom. docs/measurement.md, "Phones", has the coverage in simulation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from device_farm.measurement.types import LeftOut, Measurement, ReplicatedLatency

_TAIL = 0.975  # of a two-sided 95 % interval
_OUTLIER = 4.0  # robust standard deviations
_MAD = 1.4826  # median absolute deviation -> standard deviation of a normal distribution


class Scope(StrEnum):
    """What an interval is of."""

    MODEL = "model"  # the mean phone of the model: phones are a sample
    PHONES = "phones"  # the mean of the very phones that were measured


@dataclass(frozen=True)
class Experience:
    """What is expected before anything was measured twice, relative to the latency."""

    between_sessions: float = 0.01
    between_phones: float = 0.025
    weight: float = 2.0  # observations that it counts as
    odd_session: float = 0.03  # no session nearer to its phone's median is left out
    odd_phone: float = 0.10  # no phone nearer to the median phone is left out


_EXPERIENCE = Experience()


class Action(StrEnum):
    """What would tell most."""

    DONE = "done"
    SESSION = "session"  # one more on `serial`
    PHONE = "phone"  # the first one on `serial`
    HOPELESS = "hopeless"  # no number of sessions on the phones that there are


@dataclass(frozen=True)
class Plan:
    """What to measure next for an interval as narrow as was asked."""

    action: Action
    serial: str | None
    half_width: float  # relative; expected after it, and now if it is DONE or HOPELESS
    reason: str


@dataclass(frozen=True)
class _Components:
    """Relative variances, and how well they are known."""

    session: float
    session_freedom: float
    phone: float
    phone_freedom: float

    def half_width(self, counts: NDArray[np.float64]) -> float:
        """Relative, of phones with so many sessions each ([phones]).

        Each part has its own quantile: with Satterthwaite's common degrees of freedom, an interval could widen by
        another session, as that makes the part that is known best smaller.
        """
        shares = self.shares(counts)
        parts = (
            (self.phone * float((shares**2).sum()), self.phone_freedom),
            (self.session * float((shares**2 / counts).sum()), self.session_freedom),
        )
        return math.hypot(*(float(student_t.ppf(_TAIL, freedom)) * math.sqrt(part) for part, freedom in parts))

    def shares(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight of each phone's mean in the estimate, 1 in all ([phones])."""
        precision = 1 / (self.phone + self.session / counts)
        shares: NDArray[np.float64] = precision / precision.sum()
        return shares


def replicate(
    measurements: Sequence[Measurement], *, scope: Scope = Scope.MODEL, experience: Experience = _EXPERIENCE
) -> ReplicatedLatency:
    """One latency of all measurements of one artifact on phones of one model.

    Raises ValueError for none, and for measurements of different artifacts, models or protocols.
    """
    _comparable(measurements)
    kept, left_out = _sorted_out(_by_phone(measurements), experience)
    values = [np.array(sessions) for sessions in kept.values()]  # [sessions] each
    components, reference = _components(values, scope, experience)
    counts = np.array([len(v) for v in values], dtype=np.float64)
    means = np.array([v.mean() for v in values])
    latency = float((components.shares(counts) * means).sum())
    half_width = components.half_width(counts) * reference
    found = _components(values, Scope.MODEL, experience)[0]  # the phones differ, whatever the interval is of
    assumed = [
        name
        for name, is_assumed in (
            ("between_sessions", int(counts.max()) < 2),
            ("between_phones", len(values) < 2),
        )
        if is_assumed
    ]
    first = measurements[0]
    return ReplicatedLatency(
        artifact_key=first.artifact_key,
        model=first.device.model,
        protocol_key=first.protocol_key,
        latency_ms=latency,
        ci_low_ms=latency - half_width,
        ci_high_ms=latency + half_width,
        scope=scope.value,
        phones=len(values),
        sessions=int(counts.sum()),
        between_sessions=math.sqrt(found.session),
        between_phones=math.sqrt(found.phone),
        assumed=tuple(assumed),
        left_out=tuple(left_out),
    )


def plan_next(
    measurements: Sequence[Measurement],
    *,
    asked: float,
    spare: Sequence[str] = (),
    scope: Scope = Scope.MODEL,
    experience: Experience = _EXPERIENCE,
) -> Plan:
    """What to measure next until the interval's half width is `asked` (relative: 0.02 is 2 %).

    `spare` are serials of the model that could measure and have not yet. Raises ValueError like `replicate`.
    """
    if not asked > 0:
        raise ValueError(f"asked must be above 0, got {asked}")
    _comparable(measurements)
    kept, left_out = _sorted_out(_by_phone(measurements), experience)
    components, _ = _components([np.array(v) for v in kept.values()], scope, experience)
    counts = np.array([len(v) for v in kept.values()], dtype=np.float64)
    now = components.half_width(counts)
    if now <= asked:
        return Plan(Action.DONE, None, now, f"the interval is +-{now:.1%}, asked were {asked:.1%}")
    known = {*kept, *(left.serial for left in left_out)}
    new = [serial for serial in spare if serial not in known] if scope is Scope.MODEL else []
    best = components.half_width(np.append(np.full(len(counts), 1e6), np.full(len(new), 1e6)))
    if best > asked and not new:
        return Plan(
            Action.HOPELESS,
            None,
            now,
            f"{len(counts)} phones cannot say more than +-{best:.1%} of the {scope.value}: they differ by"
            f" {math.sqrt(components.phone):.1%}; more phones of the model are needed",
        )
    options: list[tuple[float, int, Action, str]] = []
    fewest = min(kept, key=lambda serial: len(kept[serial]))
    more = counts + (np.array(list(kept)) == fewest)
    options.append((components.half_width(more), 1, Action.SESSION, fewest))
    if new:
        options.append((components.half_width(np.append(counts, 1.0)), 0, Action.PHONE, new[0]))
    half_width, _, action, serial = min(options)
    what = "another session" if action is Action.SESSION else "the first session"
    return Plan(action, serial, half_width, f"{what} on {serial}: +-{now:.1%} becomes about +-{half_width:.1%}")


def _comparable(measurements: Sequence[Measurement]) -> None:
    if not measurements:
        raise ValueError("expected measurements, got none")
    for name, values in (
        ("artifacts", {m.artifact_key for m in measurements}),
        ("models", {m.device.model for m in measurements}),
        ("protocols", {m.protocol_key for m in measurements}),
    ):
        if len(values) > 1:
            raise ValueError(f"measurements of different {name} are not replicates: {', '.join(sorted(values))}")


def _by_phone(measurements: Sequence[Measurement]) -> dict[str, list[float]]:
    phones: dict[str, list[float]] = {}
    for measurement in measurements:
        phones.setdefault(measurement.device.serial, []).append(measurement.latency_ms)
    return phones


def _sorted_out(phones: dict[str, list[float]], experience: Experience) -> tuple[dict[str, list[float]], list[LeftOut]]:
    """What is believed, and what is not, always a minority: of a phone's sessions, and of the phones."""
    left_out: list[LeftOut] = []
    medians = {serial: statistics.median(sessions) for serial, sessions in phones.items()}
    deviations = [abs(y / medians[serial] - 1) for serial, sessions in phones.items() for y in sessions]
    limit = max(_OUTLIER * _MAD * statistics.median(deviations), experience.odd_session)
    kept: dict[str, list[float]] = {}
    for serial, sessions in phones.items():
        odd = [y for y in sessions if abs(y / medians[serial] - 1) > limit]
        if len(odd) > (len(sessions) - 1) // 2:
            odd = []  # half of the sessions contradict the others: they vary that much
        kept[serial] = [y for y in sessions if y not in odd]
        for y in odd:
            off = y / medians[serial] - 1
            left_out.append(
                LeftOut(
                    serial, y, f"session {off:+.1%} off the median of {len(sessions)} on {serial} (limit {limit:.1%})"
                )
            )
    means = {serial: statistics.fmean(sessions) for serial, sessions in kept.items()}
    median = statistics.median(means.values())
    offs = {serial: mean / median - 1 for serial, mean in means.items()}
    limit = max(_OUTLIER * _MAD * statistics.median(map(abs, offs.values())), experience.odd_phone)
    odd_phones = [serial for serial, off in offs.items() if abs(off) > limit]
    if len(odd_phones) <= (len(kept) - 1) // 2:
        for serial in odd_phones:
            reason = f"phone {offs[serial]:+.1%} off the median of {len(means)} phones (limit {limit:.1%})"
            left_out.append(LeftOut(serial, means[serial], reason))
            del kept[serial]
    return kept, left_out


def _components(
    values: Sequence[NDArray[np.float64]], scope: Scope, experience: Experience
) -> tuple[_Components, float]:
    """The variances, relative to the latency that is returned beside them."""
    reference = statistics.median(float(v.mean()) for v in values)
    weight = experience.weight
    within = sum(float(((v - v.mean()) ** 2).sum()) for v in values) / reference**2
    freedom = sum(len(v) - 1 for v in values)
    session = (weight * experience.between_sessions**2 + within) / (weight + freedom)
    if scope is Scope.PHONES:
        return _Components(session, weight + freedom, 0.0, 1.0), reference
    means = np.array([v.mean() for v in values]) / reference
    # Sessions alone make the means differ, too: that part is taken off, but never more than there is.
    by_sessions = (len(values) - 1) * session * statistics.fmean(1 / len(v) for v in values)
    among = max(float(((means - means.mean()) ** 2).sum()) - by_sessions, 0.0)
    phone = (weight * experience.between_phones**2 + among) / (weight + len(values) - 1)
    return _Components(session, weight + freedom, phone, weight + len(values) - 1), reference
