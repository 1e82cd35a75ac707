/* Times the network: first answer, warm-up, samples, profile. */
#ifndef NPAS_BENCH_H
#define NPAS_BENCH_H
#include "conditions.h"
#include "guard.h"
#include "plan.h"
#include "pool.h"
#include "tvm_slots.h"
#include "windows.h"

typedef struct {
  double warmup_s;
  sampling_options_t sampling;
  uint64_t input_seed;
  int profile;
} bench_options_t;

static void run_step(int32_t step) { npas_plan.steps[step].run(npas_plan.steps[step].state); }

static void run_network(const float *input, float *output) {
  npas_plan.set_input(input);
  for (int32_t step = 0; step < npas_plan.step_count; ++step) run_step(step);
  npas_plan.get_output(output);
  if (npas_kernel_error[0] != '\0') fail(NPAS_EXIT_KERNEL, "a kernel failed: %s", npas_kernel_error);
}

static int compare_ns(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

enum { PROFILE_PASSES = 201, PROFILE_LEAST = 21 };
static const int64_t PROFILE_MAX_NS = 300000000;

/* Median time of every step, in ns, over at most `most` runs; returns how many. Reading the clock between steps disturbs,
 * hence its own runs, in windows like those of the samples: what a disturbed window timed is forgotten for `patience_ns`,
 * to wait for a quiet one, since a busy neighbour does not slow all steps alike. */
static int profile_steps(const float *input, float *output, int most, int64_t patience_ns, const windows_t *windows,
                         int64_t *median_ns) {
  int32_t steps = npas_plan.step_count;
  int64_t *times = allocate((size_t)steps * (size_t)most, sizeof *times); /* [runs][steps] */
  int64_t *row = allocate((size_t)most, sizeof *row);
  int64_t start = now_ns();
  int kept = 0, least = most < PROFILE_LEAST ? most : PROFILE_LEAST;
  for (int64_t probe = probe_ns(); kept < most;) {
    int first = kept;
    int64_t opened = now_ns(), before;
    do {
      npas_plan.set_input(input);
      before = now_ns();
      for (int32_t step = 0; step < steps; ++step) {
        run_step(step);
        int64_t after = now_ns();
        times[(size_t)kept * (size_t)steps + (size_t)step] = after - before;
        before = after;
      }
      npas_plan.get_output(output);
    } while (++kept < most && before - opened < WINDOW_NS);
    int64_t closing = probe_ns();
    int quiet = (double)(probe > closing ? probe : closing) <= QUIET_RATIO * (double)windows->best_ns;
    int late = now_ns() - start > patience_ns;
    probe = closing;
    if (!quiet && (!late || first >= least)) kept = first;
    if (late && kept >= least) break;
  }
  for (int32_t step = 0; step < steps; ++step) {
    for (int pass = 0; pass < kept; ++pass) row[pass] = times[(size_t)pass * (size_t)steps + (size_t)step];
    qsort(row, (size_t)kept, sizeof *row, compare_ns);
    median_ns[step] = row[kept / 2];
  }
  free(times), free(row);
  return kept;
}

static void json_profile(int passes, const int64_t *median_ns) {
  printf("{\"passes\":%d,\"steps\":[", passes);
  for (int32_t step = 0; step < npas_plan.step_count; ++step) {
    const npas_step_t *s = &npas_plan.steps[step];
    fputs(step ? ",{\"name\":" : "{\"name\":", stdout);
    json_string(s->name);
    fputs(",\"kind\":", stdout);
    json_string(s->kind);
    printf(",\"macs\":%.0f,\"kept_macs\":%.0f,\"median_ns\":%lld}", s->macs, s->kept_macs, (long long)median_ns[step]);
  }
  fputs("]}", stdout);
}

/* Writes one JSON object. Everything is printed at the end, so that no write falls between samples. */
static int bench(const bench_options_t *options) {
  size_t inputs = (size_t)npas_plan.input_elements, outputs = (size_t)npas_plan.output_elements;
  float *input = allocate(inputs, sizeof *input);
  float *first = allocate(outputs, sizeof *first);
  float *output = allocate(outputs, sizeof *output);
  int64_t *samples = allocate((size_t)options->sampling.max_samples, sizeof *samples);
  int64_t *steps_ns = allocate((size_t)npas_plan.step_count, sizeof *steps_ns);
  conditions_t before, after;

  windows_t windows = allocate_windows(options->sampling.max_samples);
  memset(samples, 1, (size_t)options->sampling.max_samples * sizeof *samples); /* no page fault between samples */
  for (size_t i = 0; i < inputs; ++i) input[i] = npas_uniform(options->input_seed, 0, i);

  run_network(input, first); /* also touches every buffer of the plan */

  int warmup_runs = 0;
  for (int64_t end = now_ns() + (int64_t)(options->warmup_s * 1e9); now_ns() < end; ++warmup_runs) {
    run_network(input, output);
  }
  read_conditions(&before); /* after the warm-up: the clock that the samples will see */

  int count = 0, done = 0, who = pool.threads ? RUSAGE_SELF : RUSAGE_THREAD;
  disturbance_t start = disturbance_since((disturbance_t){0, 0, 0}, who);
  next_window(&windows, 0);
  while (!done) {
    int64_t from = now_ns();
    run_network(input, output);
    int64_t until = now_ns();
    samples[count++] = until - from;
    if (until - windows.opened_ns < WINDOW_NS && count < options->sampling.max_samples) continue;
    next_window(&windows, count);
    done = enough(&windows, &options->sampling, before.spin_ns);
  }
  disturbance_t disturbance = disturbance_since(start, who);
  read_conditions(&after);
  int repeats = memcmp(first, output, outputs * sizeof *output) == 0;

  int most = count < PROFILE_PASSES ? count : PROFILE_PASSES, passes = 0;
  if (options->profile) {
    int64_t most_ns = (int64_t)(options->sampling.max_time_s * 1e9); /* nobody waits longer for a quiet profile than for samples */
    passes = profile_steps(input, output, most, most_ns < PROFILE_MAX_NS ? most_ns : PROFILE_MAX_NS, &windows, steps_ns);
  }

  printf("{\"schema\":1,\"mode\":\"bench\",\"key\":");
  json_string(npas_plan.key);
  printf(",\"input_seed\":%llu,\"denormals\":\"flushed\",\"output\":[", (unsigned long long)options->input_seed);
  for (size_t i = 0; i < outputs; ++i) {
    if (i) putchar(',');
    json_float(first[i]);
  }
  printf("],\"output_repeats\":%s,\"affinity\":", repeats ? "true" : "false");
  json_affinity();
  printf(",\"warmup_runs\":%d,\"samples_ns\":[", warmup_runs);
  for (int i = 0; i < count; ++i) printf(i ? ",%lld" : "%lld", (long long)samples[i]);
  fputs("],\"windows\":", stdout);
  json_windows(&windows);
  fputs(",\"profile\":", stdout);
  if (options->profile) json_profile(passes, steps_ns);
  else fputs("null", stdout);
  fputs(",\"before\":", stdout);
  json_conditions(&before);
  fputs(",\"after\":", stdout);
  json_conditions(&after);
  printf(",\"voluntary_switches\":%ld,\"involuntary_switches\":%ld,\"page_faults\":%ld}\n", disturbance.voluntary,
         disturbance.involuntary, disturbance.faults);
  free(input), free(first), free(output), free(samples), free(steps_ns), free(windows.all);
  return NPAS_EXIT_OK;
}
#endif
