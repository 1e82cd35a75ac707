/* What surrounds a measurement: affinity, clocks, temperatures, load, and what the scheduler did. */
#ifndef NPAS_CONDITIONS_H
#define NPAS_CONDITIONS_H
#include <dirent.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "guard.h"
#include "json.h"
#include "plan.h"

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_RAW, &t); /* not slewed by NTP */
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

typedef struct {
  int32_t count; /* 0 = wherever the kernel likes */
  int cpus[NPAS_MOST_THREADS];
} cores_t;

/* Moves the calling thread, or ends: times of another cluster are times of another processor. The kernel may still move it
 * when the core is switched off later; json_affinity reads back what became of it. */
static void pin(int cpu) {
  cpu_set_t set;
  char allowed[256] = "";
  CPU_ZERO(&set);
  if (cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) == 0) return;
  if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
  for (int other = 0, length = 0; other < CPU_SETSIZE && length < (int)sizeof allowed - 8; ++other) {
    if (CPU_ISSET(other, &set)) length += snprintf(allowed + length, sizeof allowed - (size_t)length, " %d", other);
  }
  fail(NPAS_EXIT_CORE, "core %d is switched off or not for this program; allowed are cores%s", cpu, allowed);
}

/* First line of a small file, without its newline; 0 where it cannot be read. */
static int read_line(const char *path, char *line, size_t size) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0;
  int read = fgets(line, (int)size, file) != NULL;
  fclose(file);
  if (read) line[strcspn(line, "\r\n")] = '\0';
  return read;
}

static int read_long(const char *path, long *value) {
  char line[64], *end;
  if (!read_line(path, line, sizeof line)) return 0;
  *value = strtol(line, &end, 10);
  return end != line;
}

enum { MAX_CPUS = 64, MAX_ZONES = 64 };

typedef struct {
  long cpu_khz[MAX_CPUS]; /* 0 = unreadable */
  int zones;
  char zone_type[MAX_ZONES][32];
  long zone_millicelsius[MAX_ZONES];
  double load_1min;   /* -1 = unreadable */
  int64_t spin_ns;    /* of a fixed chain of dependent multiplications: the real clock, readable or not */
} conditions_t;

/* Fastest of five: 100,000 multiplications that wait for each other, 3 cycles each on all common cores. */
static int64_t spin_ns(void) {
  int64_t best = INT64_MAX;
  for (int attempt = 0; attempt < 5; ++attempt) {
    uint64_t x = 3;
    int64_t start = now_ns();
    for (int i = 0; i < 100000; ++i) {
      x = x * UINT64_C(6364136223846793005);
      __asm__ volatile("" : "+r"(x)); /* keeps the compiler from folding the chain */
    }
    int64_t took = now_ns() - start;
    if (took < best) best = took;
  }
  return best;
}

static void read_conditions(conditions_t *c) {
  char path[128], line[64];
  memset(c, 0, sizeof *c);
  for (int cpu = 0; cpu < MAX_CPUS; ++cpu) {
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", cpu);
    if (!read_long(path, &c->cpu_khz[cpu])) c->cpu_khz[cpu] = 0;
  }
  for (int zone = 0; zone < MAX_ZONES; ++zone) {
    long millicelsius;
    snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
    if (!read_long(path, &millicelsius)) continue; /* zones may be sparse, or refuse an ordinary user */
    c->zone_millicelsius[c->zones] = millicelsius;
    snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", zone);
    if (!read_line(path, c->zone_type[c->zones], sizeof c->zone_type[0])) {
      snprintf(c->zone_type[c->zones], sizeof c->zone_type[0], "zone%d", zone);
    }
    ++c->zones;
  }
  c->load_1min = read_line("/proc/loadavg", line, sizeof line) ? strtod(line, NULL) : -1.0;
  c->spin_ns = spin_ns();
}

static void json_conditions(const conditions_t *c) {
  const char *separator = "";
  fputs("{\"cpu_khz\":{", stdout);
  for (int cpu = 0; cpu < MAX_CPUS; ++cpu) {
    if (c->cpu_khz[cpu] <= 0) continue;
    printf("%s\"%d\":%ld", separator, cpu, c->cpu_khz[cpu]);
    separator = ",";
  }
  fputs("},\"thermal_millicelsius\":[", stdout);
  for (int zone = 0; zone < c->zones; ++zone) {
    fputs(zone ? ",[" : "[", stdout);
    json_string(c->zone_type[zone]);
    printf(",%ld]", c->zone_millicelsius[zone]);
  }
  printf("],\"load_1min\":");
  if (c->load_1min < 0) fputs("null", stdout);
  else printf("%.2f", c->load_1min);
  printf(",\"spin_ns\":%lld}", (long long)c->spin_ns);
}

/* What the kernel did to the threads that compute meanwhile: all zero in a quiet session. */
typedef struct {
  long voluntary, involuntary, faults;
} disturbance_t;

static disturbance_t disturbance_since(disturbance_t start, int who) {
  struct rusage usage;
  getrusage(who, &usage);
  return (disturbance_t){usage.ru_nvcsw - start.voluntary, usage.ru_nivcsw - start.involuntary,
                         usage.ru_minflt + usage.ru_majflt - start.faults};
}
#endif
