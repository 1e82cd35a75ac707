/* Runs one of the loops of loops.S (benchmarks/_loops.py): `microkernels NAME run SECONDS`, or `NAME check ROUNDS`.

   run prints the nanoseconds of a round, call by call; check prints the 224 floats that the loop leaves in y. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void loop_t(const float *x, const float *w, float *y, long rounds);
#define LOOP(name, place) extern loop_t name;
#include "loops.h"
#undef LOOP

static const struct {
  const char *name;
  loop_t *loop;
  long place;
} loops[] = {
#define LOOP(name, place) {#name, name, place},
#include "loops.h"
#undef LOOP
};

enum { PAGE = 4096, FLOATS = 2 * PAGE, TILE = 7 * 32, LAST_TILE = 7 * TILE };
static float x[FLOATS] __attribute__((aligned(4096)));
static float w[FLOATS] __attribute__((aligned(4096)));
static float room[2 * FLOATS] __attribute__((aligned(4096)));

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void run(loop_t *loop, float *y, double seconds) {
  enum { ROUNDS = 200, WARM_UP_NS = 20000000, MOST = 1 << 16 };
  static double samples[MOST];
  long end = now() + WARM_UP_NS;
  while (now() < end) loop(x, w, y, ROUNDS);
  long count = 0;
  end = now() + (long)(seconds * 1e9);
  do {
    long start = now();
    loop(x, w, y, ROUNDS);
    samples[count++] = (double)(now() - start) / ROUNDS;
  } while (count < MOST && now() < end);
  for (long i = 0; i < count; ++i) printf("%.3f\n", samples[i]);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  for (int i = 0; i < FLOATS; ++i) {
    x[i] = 0.5f + (float)(i % 61) / 128;
    w[i] = (float)(i % 29 - 14) / 128;
  }
  for (unsigned i = 0; i < sizeof loops / sizeof *loops; ++i) {
    if (strcmp(loops[i].name, argv[1])) continue;
    float *y = room + loops[i].place / 4;
    if (!strcmp(argv[2], "run")) {
      run(loops[i].loop, y, atof(argv[3]));
    } else {
      loops[i].loop(x, w, y, atol(argv[3]));
      const float *tile = strncmp(argv[1], "taps", 4) ? y : y + LAST_TILE;
      for (int k = 0; k < TILE; ++k) printf("%.9g\n", (double)tile[k]);
    }
    return 0;
  }
  fprintf(stderr, "no loop is called %s\n", argv[1]);
  return 2;
}
