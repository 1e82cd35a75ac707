/* Samples are taken in windows of 2 ms, and between two windows the core is probed: is all of it ours?
 *
 * The probe is a burst of independent additions, as many as the core can issue. A busy hyperthread next door, a lower clock
 * or a stolen time slice make it slower by 3 to 80 %, and the samples with it; nothing in the samples themselves tells
 * such a stretch, which may last for seconds, from a slow network. A window is quiet if the probes on both its sides are
 * near the best one. docs/measurement.md has the figures. */
#ifndef NPAS_WINDOWS_H
#define NPAS_WINDOWS_H
#include <stdint.h>
#include <stdio.h>

#include "conditions.h"
#include "guard.h"

enum { WINDOW_NS = 2000000, PROBE_ROUNDS = 20000 };

/* Here they only decide how long to go on; which samples count is decided on the host (measurement/statistics.py). */
static const double QUIET_RATIO = 1.015, CREDIBLE_RATIO = 1.005, KNOWN_RATIO = 1.08;
static const int CREDIBLE_PROBES = 8;

typedef struct {
  double min_time_s; /* of quiet windows, if there are any */
  double max_time_s; /* give up waiting for quiet */
  int min_samples, max_samples;
  double issue_ratio; /* best probe / spin of earlier sessions on this device; 0 = unknown */
} sampling_options_t;

typedef struct {
  int first;        /* index of the first sample behind this probe */
  int64_t began_ns; /* of this probe */
  int64_t took_ns;
} probe_t;

typedef struct {
  probe_t *all; /* [count]: one before every window, and one after the last */
  int count;
  int64_t opened_ns; /* the window that is open */
  int64_t best_ns;
} windows_t;

static int64_t probe_ns(void) {
  uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8;
  int64_t start = now_ns();
  for (int i = 0; i < PROBE_ROUNDS; ++i) {
    a += 1, b += 1, c += 1, d += 1, e += 1, f += 1, g += 1, h += 1;
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g), "+r"(h));
  }
  return now_ns() - start;
}

static windows_t allocate_windows(int max_samples) {
  size_t probes = (size_t)max_samples + 1;
  windows_t windows = {allocate(probes, sizeof(probe_t)), 0, 0, INT64_MAX};
  memset(windows.all, 1, probes * sizeof(probe_t)); /* no page fault between samples */
  return windows;
}

/* Closes the window that is open, if there is one, with a probe, and opens the next. */
static void next_window(windows_t *windows, int samples) {
  int64_t began = now_ns(), took = probe_ns();
  if (took < windows->best_ns) windows->best_ns = took;
  windows->all[windows->count++] = (probe_t){samples, began, took};
  windows->opened_ns = now_ns();
}

/* Time in quiet windows. 0 while no quiet state is believed: without a known one it must repeat itself, as it does not on
 * a shared core; with one it must be reached. */
static int64_t quiet_time_ns(const windows_t *windows, double known_best_ns) {
  double best = (double)windows->best_ns;
  int64_t quiet = 0;
  int near = 0;
  for (int i = 0; i < windows->count; ++i) {
    const probe_t *p = &windows->all[i];
    near += (double)p->took_ns <= CREDIBLE_RATIO * best;
    if (i == 0 || (double)p->took_ns > QUIET_RATIO * best) continue;
    if ((double)p[-1].took_ns <= QUIET_RATIO * best) quiet += p->began_ns - p[-1].began_ns - p[-1].took_ns;
  }
  int credible = known_best_ns > 0 ? best <= KNOWN_RATIO * known_best_ns : near >= CREDIBLE_PROBES;
  return credible ? quiet : 0;
}

static int enough(const windows_t *windows, const sampling_options_t *options, int64_t spin_ns) {
  const probe_t *last = &windows->all[windows->count - 1];
  double elapsed_s = 1e-9 * (double)(last->began_ns - windows->all[0].began_ns);
  if (last->first >= options->max_samples) return 1;
  if (last->first < options->min_samples || elapsed_s < options->min_time_s) return 0;
  return elapsed_s >= options->max_time_s ||
         1e-9 * (double)quiet_time_ns(windows, options->issue_ratio * (double)spin_ns) >= options->min_time_s;
}

static void json_windows(const windows_t *windows) {
  for (int i = 0; i < windows->count; ++i) {
    printf("%s[%d,%lld]", i ? "," : "[", windows->all[i].first, (long long)windows->all[i].took_ns);
  }
  putchar(']');
}
#endif
