"""An artifact that does nothing but multiply-adds: what a core can reach at most, by the same way as every network.

Its latency, measured like any other, gives the peak that shares of peak are taken of. Its kernel is in the cache like
all kernels, and its answer is checked like all answers.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from device_farm.compiler.artifact import Artifact
from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.kernels.spec import PeakKernel
from device_farm.compiler.link import link, runner_object
from device_farm.compiler.seeded import INPUT_STREAM, uniform
from device_farm.compiler.sweeping import scratch
from device_farm.compiler.target import Target
from device_farm.compiler.version import compiler_version, digest, generator_version
from device_farm.errors import CompileError
from device_farm.files import write_atomically

ROUNDS = 50_000  # of the chains: 0.3-1.3 ms a pass
_TOLERANCE = 1e-5

_PLAN = """\
#include <stdint.h>
#include "plan.h"
void {symbol}(const float *x, float *y, int32_t rounds);
static float x[{lanes}] __attribute__((aligned(64))), y[{lanes}] __attribute__((aligned(64)));
static void step(const void *state) {{ (void)state; {symbol}(x, y, {rounds}); }}
static const npas_step_t steps[] = {{{{"peak", "peak", {macs}.0, {macs}.0, step, 0}}}};
static int prepare(void) {{ return 0; }}
static void set_input(const float *flat) {{ for (int i = 0; i < {lanes}; ++i) x[i] = flat[i]; }}
static void get_output(float *flat) {{ for (int i = 0; i < {lanes}; ++i) flat[i] = y[i]; }}
npas_plan_t npas_plan = {{
  NPAS_PLAN_ABI, "{key}", {lanes}, {lanes}, 1, steps, prepare, set_input, get_output, 0
}};
const char *npas_load_plan(void) {{ return 0; }}
"""


def compile_peak(target: Target, *, out_dir: Path, cache_dir: Path) -> Artifact:
    """The executable at out_dir/<key>; `macs` of the artifact over its latency is the peak. Raises CompileError."""
    spec = PeakKernel(chains=_chains(target))
    lanes, macs = target.simd_lanes, target.simd_lanes * spec.chains * ROUNDS
    symbol = f"npas_peak_{digest([generator_version(), spec.description, json.dumps(dataclasses.asdict(target))])[:24]}"
    key = digest([compiler_version(), symbol, str(ROUNDS)])[:32]
    out_dir.mkdir(parents=True, exist_ok=True)
    path = (out_dir / key).absolute()
    cache = ObjectCache(cache_dir)

    def make(file: Path) -> None:
        from device_farm.compiler.kernels import emit  # imports TVM

        try:
            emit.build_object(spec, symbol=symbol, target=target, path=str(file))
        except Exception as error:
            raise CompileError(f"TVM failed on the kernel that measures the peak: {error}") from error

    objects = [cache.get_or_make(symbol, make), runner_object(cache, target)]
    with scratch(out_dir, ".linking-") as folder:
        files = [folder / f"{index}.o" for index in range(len(objects))]
        for file, content in zip(files, objects, strict=True):
            file.write_bytes(content)
        plan = folder / "plan.c"
        plan.write_text(_PLAN.format(symbol=symbol, lanes=lanes, rounds=ROUNDS, macs=macs, key=key))
        link(plan, files, target=target, output=folder / "linked", cache_dir=cache_dir)
        executable = (folder / "linked").read_bytes()
    write_atomically(path, executable, executable=True)
    return Artifact(
        key=key,
        path=path,
        target=target.name,
        input_shape=(1, 1, lanes),
        output_elements=lanes,
        input_seed=0,
        expected_output=tuple(uniform(0, INPUT_STREAM, lanes).tolist()),
        tolerance=_TOLERANCE,
        macs=macs,
        kept_macs=macs,
    )


def _chains(target: Target) -> int:
    """Enough to hide four cycles of latency on several units, and few enough for the registers: AVX2 has 16."""
    return 12 if target.simd_lanes == 8 else 24
