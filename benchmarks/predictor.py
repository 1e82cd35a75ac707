"""The latency predictor of `npas calibrate` against candidates that it has not seen.

    python benchmarks/predictor.py [--space digits mobile] [--work DIR] [--json FILE] [--quick]

For each space: candidates of a calibration's design are measured, in random order among them as many others drawn
uniformly from the space, and at the end some of those once more: how well a measurement repeats itself is what no
predictor can beat. The predictor is fitted to the design alone. `digits` is the space of examples/demo.yaml; `mobile`
has 17 blocks like MobileNetV2's at 224x224 and a searchable head.

Everything goes through the product's own parts (Meter, journal, fit); only the farm is left out, so that compiling
comes first, on other cores, and the timed part can hold a lock (`--lock FILE`, at most `--hold-s` at a time) that other
timed work on the machine takes, too. With `--work` an interrupted run goes on. A missed bar gives status 1.
"""

from __future__ import annotations

import fcntl
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from scipy.stats import spearmanr

from benchmarks._harness import finish, parser, table
from device_farm.calibration.collecting import Case, collect
from device_farm.calibration.file import Identity
from device_farm.calibration.journal import Record, open_journal
from device_farm.calibration.predictor import Observation, fit
from device_farm.calibration.steps import describe
from device_farm.calibration.validation import validate
from device_farm.compiler import compile_network, host_target
from device_farm.compiler.graph import Graph
from device_farm.compiler.version import compiler_version
from device_farm.measurement.session import Meter, remote_name
from device_farm.measurement.types import Measurement, Protocol
from device_farm.transport.local import LocalTransport
from npas_ray.calibration.design import default_count, design
from npas_ray.calibration.pieces import Pieces
from npas_ray.calibration.points import breakeven_map
from npas_ray.calibration.prediction import CandidatePredictor
from npas_ray.calibration.store import space_to_json
from npas_ray.networks.backbone import DIGITS, make_backbone
from npas_ray.networks.lowering import lower
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

MOBILE = make_backbone(
    "mobile",
    input_shape=(3, 224, 224),
    stem=(32, 2),
    blocks=(
        (16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1),
        (96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1),
    ),
    classes=1000,
    expansion=6,
    searchable_head=True,
)  # fmt: skip
SPACES = {"digits": DIGITS, "mobile": MOBILE}
WITHIN, WITHIN_BAR, RANK_BAR = 0.10, 0.95, 0.97
CONFIDENCES = (0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Candidates:
    """Who is measured; `again` are some of the unseen."""

    designed: tuple[Architecture, ...]
    unseen: tuple[Architecture, ...]
    again: tuple[Architecture, ...]

    @classmethod
    def draw(cls, space: SearchSpace, *, designed: int, unseen: int, again: int) -> Candidates:
        chosen = design(space, designed, seed=0)
        rng, others = np.random.default_rng(12_345), dict[Architecture, None]()
        while len(others) < unseen:
            architecture = space.sample(rng)
            if architecture not in chosen:
                others[architecture] = None
        return cls(chosen, tuple(others), tuple(others)[:again])


@dataclass
class Turn:
    """The right to time, held for `hold_s` at a time."""

    path: Path | None
    hold_s: float
    _file: TextIO | None = None
    _until: float = field(default=0.0)

    def take(self) -> None:
        if self.path is None or (self._file is not None and time.monotonic() < self._until):
            return
        self.give_back()
        time.sleep(0.2)
        self._file = self.path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._until = time.monotonic() + self.hold_s

    def give_back(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def build(job: tuple[Graph, Path]) -> None:
    """Compiles one candidate; what is there already is not compiled again."""
    graph, folder = job
    compile_network(graph, target=host_target(), out_dir=folder / "artifacts", cache_dir=folder / "cache")


def measure(
    name: str,
    space: SearchSpace,
    candidates: Candidates,
    *,
    folder: Path,
    workers: int,
    turn: Turn,
    cpu: int,
    attempts: int,
) -> dict[tuple[str, ...], Record]:
    """Records by (role, *architecture)."""
    target = host_target()
    mixed = [("designed", a) for a in candidates.designed] + [("unseen", a) for a in candidates.unseen]
    order = np.random.default_rng(1).permutation(len(mixed))
    roles = [mixed[i] for i in order] + [("again", a) for a in candidates.again]
    # One session at a time: where the core is shared, trying again later is worth more than waiting on the spot.
    protocol = Protocol(attempts=1, min_time_s=0.1, max_time_s=2.0)

    def graph_of(architecture: Architecture) -> Graph:
        return lower(space.backbone, architecture, block_height=target.block_height)

    cases = [Case((role, *a.to_json()), partial(graph_of, a)) for role, a in roles]
    started = time.monotonic()
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(build, ((graph_of(a), folder) for _, a in mixed), chunksize=4))
    print(f"{name}: {len(mixed)} candidates compiled in {time.monotonic() - started:.0f} s", flush=True)
    meter = Meter(LocalTransport(folder / "device", cpu))

    def submit(graph: Graph, seed: int) -> Callable[[], Measurement]:
        artifact = compile_network(
            graph, target=target, out_dir=folder / "artifacts", cache_dir=folder / "cache", seed=seed
        )

        def wait() -> Measurement:
            turn.take()
            try:
                return meter.measure(artifact, protocol)
            finally:
                meter.transport.remove(remote_name(artifact.path))

        return wait

    identity = Identity(
        compiler_version(), target.name, "local", protocol.key, space_to_json(space, target.block_height)
    )
    with open_journal(folder / f"{name}.journal", identity) as journal:

        def told(record: Record) -> None:
            if len(journal.records) % 20 == 0:
                quiet = sum(known.quiet for known in journal.records.values())
                print(f"{name}: {len(journal.records)} of {len(cases)} measured, {quiet} quiet", flush=True)

        try:
            collect(cases, submit, journal, at_once=lambda: 1, attempts=attempts, told=told)
        finally:
            turn.give_back()
        return journal.records


def judge(
    name: str, space: SearchSpace, candidates: Candidates, records: dict[tuple[str, ...], Record]
) -> dict[str, Any]:
    """Fits to the designed candidates, predicts the others."""
    target = host_target()

    def record(role: str, architecture: Architecture) -> Record:
        return records[(role, *architecture.to_json())]

    observations = []
    for architecture in candidates.designed:
        known = record("designed", architecture)
        if known.latency_ms is not None:
            graph = lower(space.backbone, architecture, block_height=target.block_height)
            steps = describe(graph, target)
            assert [step.name for step in steps] == [step for step, _ in known.steps_ms]
            times = tuple(time_ms for _, time_ms in known.steps_ms)
            observations.append(Observation(steps, times, known.latency_ms, known.relative_error, known.quiet))
    started = time.perf_counter()
    validation = validate(observations)
    validate_s, started = time.perf_counter() - started, time.perf_counter()
    model = fit(observations, stretch=validation.stretch.tolist(), misfit=validation.misfit)
    fit_s = time.perf_counter() - started
    predictor = CandidatePredictor(Pieces(space.backbone, target, target.block_height), model)

    believed = [a for a in candidates.unseen if record("unseen", a).quiet]
    measured = np.array([record("unseen", a).latency_ms for a in believed], dtype=np.float64)
    started = time.perf_counter()
    predictor.predict(believed)
    cold_ms = 1e3 * (time.perf_counter() - started) / len(believed)
    answer = predictor.predict(believed)
    errors = answer.mean_ms / measured - 1
    coverage = {}
    for confidence in CONFIDENCES:
        interval = predictor.predict(believed, confidence=confidence)
        coverage[f"{confidence:g}"] = {
            "covered": float(((measured >= interval.low_ms) & (measured <= interval.high_ms)).mean()),
            "median_half_width": float(np.median((interval.high_ms - interval.low_ms) / 2 / interval.mean_ms)),
        }
    rng = np.random.default_rng(7)
    many = [space.sample(rng) for _ in range(3000)]
    started = time.perf_counter()
    predictor.predict(many)
    search_ms, started = 1e3 * (time.perf_counter() - started) / len(many), time.perf_counter()
    predictor.predict(many)
    warm_ms = 1e3 * (time.perf_counter() - started) / len(many)
    pairs = [(record("unseen", a), record("again", a)) for a in candidates.again]
    quiet_ms = [(a.latency_ms, b.latency_ms) for a, b in pairs if a.quiet and b.quiet]
    first_ms, again_ms = np.array(quiet_ms, dtype=np.float64).reshape(-1, 2).T
    ratios = again_ms / first_ms - 1
    every = [(a, record("unseen", a).latency_ms) for a in candidates.unseen if record("unseen", a).latency_ms]
    of_all = predictor.predict([a for a, _ in every]).mean_ms / np.array([ms for _, ms in every], dtype=float) - 1
    points = breakeven_map(space, predictor, candidates.designed)
    result = {
        "space": {"name": name, "layers": space.layers, "size": f"{space.size:.3g}"},
        "designed": {"count": len(candidates.designed), "quiet": sum(o.quiet for o in observations)},
        "unseen": {"count": len(candidates.unseen), "quiet": len(believed)},
        "latency_ms": [float(measured.min()), float(np.median(measured)), float(measured.max())],
        "within_10_percent": float((np.abs(errors) < WITHIN).mean()),
        "within_10_percent_of_all": float((np.abs(of_all) < WITHIN).mean()),
        "median_error": float(np.median(np.abs(errors))),
        "p95_error": float(np.quantile(np.abs(errors), 0.95)),
        "max_error": float(np.abs(errors).max()),
        "bias": float(errors.mean()),
        "rank_correlation": float(spearmanr(answer.mean_ms, measured).statistic),
        "coverage": coverage,
        "unseen_share": float(answer.unseen.mean()),
        "repeatability": {
            "pairs": len(ratios), "std": float(ratios.std()), "median": float(np.median(np.abs(ratios))),
            "max": float(np.abs(ratios).max()), "within_10_percent": float((np.abs(ratios) < WITHIN).mean()),
        },
        "cross_validated": {
            "within_10_percent": float((validation.relative_errors < WITHIN).mean()),
            "median_error": float(np.median(validation.relative_errors)),
            "rank_correlation": validation.rank_correlation,
            "misfit": validation.misfit,
        },
        "ms_a_candidate": {"first_200": cold_ms, "first_3000": search_ms, "known_pieces": warm_ms},
        "fit_s": fit_s,
        "validate_s": validate_s,
        "points": {v: sum(p.verdict.value == v for p in points) for v in ("pays", "slower", "unclear")},
        "slower": [str(p) for p in points if p.verdict.value == "slower"],
        "predicted_ms": answer.mean_ms.round(7).tolist(),
        "measured_ms": measured.round(7).tolist(),
    }  # fmt: skip
    _print(result)
    return result


def _print(result: dict[str, Any]) -> None:
    repeat, cost = result["repeatability"], result["ms_a_candidate"]
    low, median, high = result["latency_ms"]
    rows: list[Sequence[object]] = [
        ("believed of unseen candidates", f"{result['unseen']['quiet']} of {result['unseen']['count']}"),
        ("latency, ms", f"{low:.4g} .. {median:.4g} .. {high:.4g}"),
        ("within 10 %", f"{result['within_10_percent']:.1%}"),
        ("error: median, 95 %, largest", "  ".join(f"{result[f'{k}_error']:.1%}" for k in ("median", "p95", "max"))),
        ("rank correlation", f"{result['rank_correlation']:.4f}"),
        *(
            (f"{float(promised):.0%} interval covers", f"{got['covered']:.1%} (+- {got['median_half_width']:.1%})")
            for promised, got in result["coverage"].items()
        ),
        ("share of time in steps never measured", f"{result['unseen_share']:.1%}"),
        ("measured twice: std, median, largest", f"{repeat['std']:.1%}  {repeat['median']:.1%}  {repeat['max']:.1%}"),
        ("ms a candidate: first 200, 3000, known", "  ".join(f"{ms:.3f}" for ms in cost.values())),
        ("break-even points", ", ".join(f"{count} {verdict}" for verdict, count in result["points"].items())),
    ]  # fmt: skip
    print(f"\n{result['space']['name']}: {result['designed']['count']} candidates calibrate, {host_target().name}")
    print(table(("", ""), rows), flush=True)


def main() -> int:
    made = parser("The latency predictor against candidates that it has not seen.")
    made.add_argument("--space", nargs="+", choices=tuple(SPACES), default=list(SPACES))
    made.add_argument("--work", type=Path, metavar="DIR", help="keep what was compiled and measured there")
    made.add_argument("--designed", type=int, help="candidates that calibrate (default: that of `npas calibrate`)")
    made.add_argument("--unseen", type=int, default=200)
    made.add_argument("--again", type=int, default=30)
    made.add_argument("--attempts", type=int, default=4, help="at a candidate whose core was shared all the time")
    made.add_argument("--workers", type=int, default=3, help="compiling processes")
    made.add_argument("--cpu", type=int, default=-1, help="the core that measures (default: the last one)")
    made.add_argument("--lock", type=Path, help="hold this file's lock while timing")
    made.add_argument("--hold-s", type=float, default=150.0)
    arguments = made.parse_args()
    import os

    cpu = (os.cpu_count() or 1) - 1 if arguments.cpu < 0 else arguments.cpu
    results: dict[str, Any] = {}
    missed = []
    with tempfile.TemporaryDirectory(prefix="predictor-") as scratch:
        folder: Path = arguments.work or Path(scratch)
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        for name in arguments.space:
            space = SearchSpace(SPACES[name])
            unseen, again = (30, 5) if arguments.quick else (arguments.unseen, arguments.again)
            count = arguments.designed or default_count(space) // (3 if arguments.quick else 1)
            candidates = Candidates.draw(space, designed=count, unseen=unseen, again=again)
            turn = Turn(arguments.lock, arguments.hold_s)
            records = measure(
                name, space, candidates, folder=folder, workers=arguments.workers, turn=turn, cpu=cpu,
                attempts=arguments.attempts,
            )  # fmt: skip
            result = results[name] = judge(name, space, candidates, records)
            if result["within_10_percent"] < WITHIN_BAR or result["rank_correlation"] < RANK_BAR:
                missed.append(name)
    finish("predictor", {"spaces": results}, arguments.json)
    if missed:
        print(f"missed: {', '.join(missed)} below {WITHIN_BAR:.0%} within {WITHIN:.0%} or {RANK_BAR} rank correlation")
    return 1 if missed and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
