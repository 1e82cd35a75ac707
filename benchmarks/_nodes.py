"""Times inside an engine: of one layer's kernel alone, by the engine's own clock, so that no call's overhead counts."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks._harness import timed

COMPUTING = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Relu", "Clip"}


class OnnxRuntimeNodes:
    """ONNX Runtime on one thread with its profiler on; `rounds_us` are the medians of its computing nodes, by round.

    Turning data into the engine's own layout and back is left out, as it falls away in the middle of a network. The
    profiler cuts times to whole microseconds, half a microsecond in its favour.
    """

    def __init__(self, model: bytes, scratch: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # as our runner does
        options.enable_profiling = True
        options.profile_file_prefix = str(scratch / "onnxruntime")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (given,), (made,) = self._session.get_inputs(), self._session.get_outputs()
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(given.name, np.random.default_rng(0).random(given.shape, np.float32))
        self._binding.bind_output(made.name)
        self._runs: list[int] = []  # of a warm-up and a round in turns

    def run(self, seconds: float) -> None:
        """One round."""
        for part in (seconds / 2, seconds):
            self._runs.append(len(timed(lambda: self._session.run_with_iobinding(self._binding), part, warmup_s=0)))

    def rounds_us(self) -> list[float]:
        """Ends the session."""
        path = Path(self._session.end_profiling())
        events = [event for event in json.loads(path.read_text()) if event["cat"] in ("Node", "Session")]
        path.unlink()
        runs, total = [], 0.0
        for event in sorted(events, key=lambda event: event["ts"] + event["dur"]):
            if event["name"] == "model_run":
                runs.append(total)
                total = 0.0
            elif event["name"].endswith("_kernel_time") and event["args"]["op_name"] in COMPUTING:
                total += event["dur"]
        if len(runs) != sum(self._runs):
            raise RuntimeError(f"ONNX Runtime's profile has {len(runs)} runs, expected {sum(self._runs)}")
        ends = list(itertools.accumulate(self._runs))
        return [statistics.median(runs[start:end]) for start, end in zip(ends[::2], ends[1::2], strict=True)]


_PEAK = """
#include <stdio.h>
#include <time.h>
typedef float vector __attribute__((vector_size(4 * LANES)));
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
int main(void) {
  vector sums[12], x, y;
  for (int i = 0; i < LANES; ++i) x[i] = 0.999f, y[i] = 1e-3f;
  __asm__ volatile("" : "+m"(x), "+m"(y)); /* no constants */
  for (int s = 0; s < 12; ++s) sums[s] = y;
  double best = 1e9;
  for (int pass = 0; pass < 200; ++pass) {
    double start = now();
    for (int i = 0; i < 10000; ++i) {
#pragma GCC unroll 12
      for (int s = 0; s < 12; ++s) sums[s] = sums[s] * x + y;
    }
    double time = now() - start;
    if (time < best) best = time;
  }
  float total = 0;
  for (int s = 0; s < 12; ++s) for (int i = 0; i < LANES; ++i) total += sums[s][i];
  printf("%.3f %g\\n", 2.0 * LANES * 12 * 10000 / best / 1e9, total);
}
"""


def build_peak(folder: Path, lanes: int) -> Path:
    """A program that prints the GFLOP/s of independent multiply-adds in registers."""
    source, program = folder / "peak.c", folder / "peak"
    source.write_text(_PEAK)
    options = ["-O3", "-mcpu=native", "-ffp-contract=fast", f"-DLANES={lanes}"]
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *options, str(source), "-o", str(program)], check=True)
    return program


def peak_gflops(program: Path) -> float:
    return float(subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.split()[0])
