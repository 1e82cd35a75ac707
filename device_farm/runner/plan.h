/* The seam between a network and the runner (runner.c, one for all): the interpreter of csrc/ fills it from data. */
#ifndef NPAS_PLAN_H
#define NPAS_PLAN_H
#include <stdint.h>

#define NPAS_PLAN_ABI 2
#define NPAS_MOST_THREADS 64

enum { NPAS_NEEDS_HALF = 1 }; /* half-precision arithmetic */

typedef struct {
  const char *name;  /* of the layer */
  const char *kind;  /* of the operator, as in graph.py, or of a fused group */
  double macs;       /* dense */
  double kept_macs;  /* left by the sparsity */
  void (*run)(const void *state);
  const void *state;
} npas_step_t;

typedef struct {
  int32_t abi;
  const char *key;                        /* content hash of the artifact */
  int32_t input_elements, output_elements;
  int32_t step_count;
  const npas_step_t *steps;
  int (*prepare)(void);                   /* once: lay out or generate weights, zero borders; 0 = well */
  void (*set_input)(const float *nhwc);   /* flat NHWC -> the network's own input buffer */
  void (*get_output)(float *flat);        /* the network's output -> flat NHWC */
  uint32_t needs;                         /* NPAS_NEEDS_..., instructions beyond the architecture's own */
} npas_plan_t;

extern npas_plan_t npas_plan;
/* Fills npas_plan; before anything else is asked of it. NULL = well, else what is wrong. */
const char *npas_load_plan(void);

/* For plans whose steps are shared by several threads (pool.h). prepare() starts them, the calling thread included;
   npas_parallel runs part(0) .. part(threads - 1) side by side, part(0) on the calling thread, and returns when all have. */
void npas_start_threads(int32_t threads);
void npas_parallel(void (*part)(int32_t index));

/* Element i of stream s under a seed: uniform in [-1, 1), the same bits as device_farm/compiler/seeded.py. */
static inline float npas_uniform(uint64_t seed, uint64_t stream, uint64_t i) {
  uint64_t z = seed * UINT64_C(0x9E3779B97F4A7C15) + (stream << 40) + i + UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  z = z ^ (z >> 31);
  return (float)(uint32_t)(z >> 40) * (1.0f / 8388608.0f) - 1.0f;
}
#endif
