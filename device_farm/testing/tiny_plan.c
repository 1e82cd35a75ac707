/* A real network, small enough to read: 3x3 convolution (8x8x3 -> 8x8x8) + ReLU, global average, dense (8 -> 5).
 * -DTHREADS=n shares the rows of the convolution among n threads; -DFAULT_... makes it misbehave in one way each. device_farm.testing.tiny builds it and knows its answer. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "plan.h"

#ifndef SEED
#define SEED 7
#endif
#ifndef REPEATS
#define REPEATS 1 /* of the convolution: to make it slower */
#endif
#ifndef KEY
#define KEY "tiny"
#endif
#ifndef NEEDS
#define NEEDS 0
#endif
#ifndef ABI
#define ABI NPAS_PLAN_ABI
#endif

enum { H = 8, W = 8, C = 3, F = 8, CLASSES = 5 };

static float bordered[H + 2][W + 2][C], weight[F][3][3][C], features[H][W][F], pooled[F], dense[CLASSES][F];
static float answer[CLASSES];

static int prepare(void) {
  float *w = &weight[0][0][0][0], *d = &dense[0][0];
  for (int i = 0; i < F * 9 * C; ++i) w[i] = npas_uniform(SEED, 1, (uint64_t)i);
  for (int i = 0; i < CLASSES * F; ++i) d[i] = npas_uniform(SEED, 2, (uint64_t)i);
#ifdef THREADS
  npas_start_threads(THREADS);
#endif
#ifdef FAULT_PREPARE
  return 42;
#endif
  return 0;
}

static void set_input(const float *nhwc) {
  for (int y = 0; y < H; ++y)
    for (int x = 0; x < W; ++x)
      for (int c = 0; c < C; ++c) bordered[y + 1][x + 1][c] = nhwc[(y * W + x) * C + c];
}

static void rows(int first, int last) {
  for (int y = first; y < last; ++y)
    for (int x = 0; x < W; ++x)
      for (int f = 0; f < F; ++f) {
        float sum = 0;
        for (int ky = 0; ky < 3; ++ky)
          for (int kx = 0; kx < 3; ++kx)
            for (int c = 0; c < C; ++c) sum += weight[f][ky][kx][c] * bordered[y + ky][x + kx][c];
        features[y][x][f] = sum > 0 ? sum : 0;
      }
}

#ifdef THREADS
static void part(int32_t index) {
#ifdef FAULT_WORKER_CRASH
  if (index == THREADS - 1) __builtin_trap();
#endif
#ifdef FAULT_WORKER_HANG
  if (index == THREADS - 1) {
    struct timespec hour = {3600, 0};
    nanosleep(&hour, NULL);
  }
#endif
  rows(H * index / THREADS, H * (index + 1) / THREADS);
}
#endif

static void convolution(const void *state) {
  (void)state;
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
#ifdef THREADS
    npas_parallel(part);
#else
    rows(0, H);
#endif
    __asm__ volatile("" : : : "memory");
  }
}

static void average(const void *state) {
  (void)state;
  for (int f = 0; f < F; ++f) {
    float sum = 0;
    for (int y = 0; y < H; ++y)
      for (int x = 0; x < W; ++x) sum += features[y][x][f];
    pooled[f] = sum / (H * W);
  }
}

#ifdef FAULT_KERNEL
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count);
#endif
#ifdef WITH_WORKSPACE
extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
extern int (*__TVMBackendFreeWorkspace)(int, int, void *);
#endif

static void classifier(const void *state) {
  (void)state;
  for (int k = 0; k < CLASSES; ++k) {
    float sum = 0;
    for (int f = 0; f < F; ++f) sum += dense[k][f] * pooled[f];
    answer[k] = sum;
  }
#ifdef FAULT_KERNEL
  const char *parts[] = {"shape mismatch in ", "dense"};
  TVMFFIErrorSetRaisedFromCStrParts("ValueError", parts, 2);
#endif
#ifdef FAULT_CRASH
  *(volatile int *)8 = 1;
#endif
#ifdef FAULT_RESTART
  raise(SIGPWR); /* of an emulated phone: it restarts */
#endif
#ifdef FAULT_ILLEGAL
  __builtin_trap();
#endif
#ifdef FAULT_NAN
  answer[1] = __builtin_nanf("");
#endif
#ifdef FAULT_STATE
  static int runs;
  answer[0] += (float)(runs++);
#endif
#ifdef FAULT_HANG
  for (;;) {
    struct timespec second = {1, 0};
    nanosleep(&second, NULL);
  }
#endif
#ifdef WITH_WORKSPACE /* uses TVM's workspace as a generated kernel does */
  float *copy = __TVMBackendAllocWorkspace(1, 0, sizeof answer, 2, 32);
  for (int k = 0; k < CLASSES; ++k) copy[k] = answer[k];
  for (int k = 0; k < CLASSES; ++k) answer[k] = copy[k];
  __TVMBackendFreeWorkspace(1, 0, copy);
#endif
#ifdef FAULT_DENORMAL
  volatile float tiny = 1e-30f;
  answer[0] = tiny * 1e-10f; /* 1e-40: denormal */
#endif
}

static void get_output(float *flat) {
  for (int k = 0; k < CLASSES; ++k) flat[k] = answer[k];
}

static const npas_step_t steps[] = {
    {"stem", "conv2d", H * W * F * 9 * C, H * W * F * 9 * C, convolution, NULL},
    {"pool", "pool2d", 0, 0, average, NULL},
    {"head \"quoted\"", "conv2d", CLASSES * F, CLASSES * F, classifier, NULL},
};

npas_plan_t npas_plan = {ABI, KEY, H * W * C, CLASSES, 3, steps, prepare, set_input, get_output, NEEDS};

const char *npas_load_plan(void) { return NULL; }
