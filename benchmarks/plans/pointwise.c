/* A chain of pointwise layers, LAYERS x [PIXELS x C] -> [PIXELS x C], as fast as the core: something to be timed. */
#include "plan.h"

enum { TILE = 7, LANES = 16 };
typedef float vector_t __attribute__((vector_size(4 * LANES)));

static float weight[LAYERS][C][C] __attribute__((aligned(64)));
static float activation[2][PIXELS][C] __attribute__((aligned(64)));

static int prepare(void) {
  float *w = &weight[0][0][0];
  for (int i = 0; i < LAYERS * C * C; ++i) w[i] = npas_uniform(1, 1, (uint64_t)i) * 0.1f;
  return 0;
}

static void set_input(const float *nhwc) {
  float *a = &activation[0][0][0];
  for (int i = 0; i < PIXELS * C; ++i) a[i] = nhwc[i];
}

static void layer(int l) {
  float(*in)[C] = activation[l & 1], (*out)[C] = activation[(l + 1) & 1];
  for (int p = 0; p + TILE <= PIXELS; p += TILE) {
    for (int f = 0; f < C; f += 2 * LANES) {
      vector_t sum[TILE][2];
      for (int i = 0; i < TILE; ++i) sum[i][0] = sum[i][1] = (vector_t){0};
      for (int c = 0; c < C; ++c) {
        vector_t low = *(vector_t *)&weight[l][c][f], high = *(vector_t *)&weight[l][c][f + LANES];
        for (int i = 0; i < TILE; ++i) {
          float x = in[p + i][c];
          sum[i][0] += low * x;
          sum[i][1] += high * x;
        }
      }
      for (int i = 0; i < TILE; ++i) {
        *(vector_t *)&out[p + i][f] = sum[i][0];
        *(vector_t *)&out[p + i][f + LANES] = sum[i][1];
      }
    }
  }
}

static void chain(const void *state) {
  (void)state;
  for (int l = 0; l < LAYERS; ++l) layer(l);
}

static void get_output(float *flat) {
  for (int i = 0; i < 10; ++i) flat[i] = activation[LAYERS & 1][0][i];
}

static const npas_step_t steps[] = {
    {"chain", "conv2d", (double)LAYERS * PIXELS * C * C, (double)LAYERS * PIXELS * C * C, chain, 0}};

npas_plan_t npas_plan = {NPAS_PLAN_ABI, "pointwise", PIXELS * C, 10, 1, steps, prepare, set_input, get_output, 0};

const char *npas_load_plan(void) { return 0; }
