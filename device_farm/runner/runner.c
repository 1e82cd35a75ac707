/* The program around the generated kernels. It is compiled as one unit (its parts are the headers beside it) and linked
 * with what defines npas_plan: csrc/interpreter.c and kernels, or a small plan in C. C11, Linux, static musl, nothing else.
 *
 *   runner bench --warmup-s S --min-time-s S --max-time-s S --min-samples N --max-samples N --input-seed N
 *                [--cpu K|-1 | --cpus K,K,...] [--issue-ratio R] [--profile]
 *   runner classify --input FILE --output FILE
 *   runner info
 *
 * and in every mode: [--wall-limit-s S] [--die-with-stdin]. See docs/runner.md for the JSON and guard.h for the exit codes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "bench.h"
#include "conditions.h"
#include "guard.h"
#include "instructions.h"
#include "json.h"
#include "plan.h"
#include "pool.h"
#include "tvm_slots.h"

static int info(void) {
  printf("{\"schema\":1,\"mode\":\"info\",\"abi\":%d,\"key\":", NPAS_PLAN_ABI);
  json_string(npas_plan.key);
  printf(",\"input_elements\":%d,\"output_elements\":%d,\"steps\":[", npas_plan.input_elements,
         npas_plan.output_elements);
  for (int32_t step = 0; step < npas_plan.step_count; ++step) {
    const npas_step_t *s = &npas_plan.steps[step];
    fputs(step ? ",{\"name\":" : "{\"name\":", stdout);
    json_string(s->name);
    fputs(",\"kind\":", stdout);
    json_string(s->kind);
    printf(",\"macs\":%.0f,\"kept_macs\":%.0f}", s->macs, s->kept_macs);
  }
  fputs("]}\n", stdout);
  return NPAS_EXIT_OK;
}

/* Raw float32 images, NHWC, back to back in; raw float32 outputs back to back out; little-endian like all our targets. */
static int classify(const char *input_path, const char *output_path) {
  size_t inputs = (size_t)npas_plan.input_elements, outputs = (size_t)npas_plan.output_elements;
  size_t image_bytes = inputs * sizeof(float);
  FILE *in = fopen(input_path, "rb");
  if (in == NULL) fail(NPAS_EXIT_FILE, "cannot read %s: %s", input_path, strerror(errno));
  struct stat status;
  if (fstat(fileno(in), &status) != 0) fail(NPAS_EXIT_FILE, "cannot read %s: %s", input_path, strerror(errno));
  if (!S_ISREG(status.st_mode)) fail(NPAS_EXIT_FILE, "%s is not a regular file", input_path);
  if ((size_t)status.st_size % image_bytes != 0) {
    fail(NPAS_EXIT_FILE, "%s has %lld bytes, expected a multiple of %zu (one image of %zu float32)", input_path,
         (long long)status.st_size, image_bytes, inputs);
  }
  FILE *out = fopen(output_path, "wb");
  if (out == NULL) fail(NPAS_EXIT_FILE, "cannot write %s: %s", output_path, strerror(errno));
  size_t images = (size_t)status.st_size / image_bytes;
  float *image = allocate(inputs, sizeof *image), *answer = allocate(outputs, sizeof *answer);
  for (size_t i = 0; i < images; ++i) {
    if (fread(image, sizeof *image, inputs, in) != inputs) fail(NPAS_EXIT_FILE, "%s became shorter", input_path);
    run_network(image, answer);
    if (fwrite(answer, sizeof *answer, outputs, out) != outputs) {
      fail(NPAS_EXIT_FILE, "cannot write %s: %s", output_path, strerror(errno));
    }
  }
  if (fclose(out) != 0) fail(NPAS_EXIT_FILE, "cannot write %s: %s", output_path, strerror(errno));
  fclose(in);
  free(image), free(answer);
  printf("{\"schema\":1,\"mode\":\"classify\",\"key\":");
  json_string(npas_plan.key);
  printf(",\"images\":%zu}\n", images);
  return NPAS_EXIT_OK;
}

static double parse_number(const char *option, const char *text) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= 0 && value <= 1e6)) {
    fail(NPAS_EXIT_USAGE, "%s: expected a number between 0 and 1e6, got '%s'", option, text);
  }
  return value;
}

static long parse_integer(const char *option, const char *text, long low, long high) {
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || value < low || value > high) {
    fail(NPAS_EXIT_USAGE, "%s: expected an integer between %ld and %ld, got '%s'", option, low, high, text);
  }
  return value;
}

/* "2,3": a core for each thread, in their order. */
static cores_t parse_cores(const char *option, const char *text) {
  cores_t cores = {0, {0}};
  char number[16];
  for (const char *at = text;; ++at) {
    size_t length = strcspn(at, ",");
    if (length >= sizeof number || cores.count == NPAS_MOST_THREADS) {
      fail(NPAS_EXIT_USAGE, "%s: expected up to %d cores such as 2,3, got '%s'", option, NPAS_MOST_THREADS, text);
    }
    memcpy(number, at, length);
    number[length] = '\0';
    cores.cpus[cores.count++] = (int)parse_integer(option, number, 0, INT_MAX);
    at += length;
    if (*at == '\0') return cores;
  }
}

static uint64_t parse_seed(const char *option, const char *text) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || text[0] == '-') {
    fail(NPAS_EXIT_USAGE, "%s: expected an integer between 0 and 2^64 - 1, got '%s'", option, text);
  }
  return (uint64_t)value;
}

int main(int argc, char **argv) {
  bench_options_t options = {.warmup_s = 0.05};
  sampling_options_t *sampling = &options.sampling;
  *sampling = (sampling_options_t){.min_time_s = 0.2, .max_time_s = 1.0, .min_samples = 20, .max_samples = 20000};
  double wall_limit_s = 60.0;
  const char *input_path = NULL, *output_path = NULL, *mode = argc > 1 ? argv[1] : "";
  int is_bench = strcmp(mode, "bench") == 0, is_classify = strcmp(mode, "classify") == 0;
  if (!is_bench && !is_classify && strcmp(mode, "info") != 0) {
    fail(NPAS_EXIT_USAGE, "expected a mode: bench, classify or info, got '%s'", mode);
  }
  for (int i = 2; i < argc; ++i) {
    const char *option = argv[i];
    if (strcmp(option, "--die-with-stdin") == 0) {
      guard_link();
      continue;
    }
    if (is_bench && strcmp(option, "--profile") == 0) {
      options.profile = 1;
      continue;
    }
    if (i + 1 >= argc) fail(NPAS_EXIT_USAGE, "%s: unknown option of '%s', or its value is missing", option, mode);
    const char *value = argv[++i];
    if (strcmp(option, "--wall-limit-s") == 0) wall_limit_s = parse_number(option, value);
    else if (is_bench && strcmp(option, "--warmup-s") == 0) options.warmup_s = parse_number(option, value);
    else if (is_bench && strcmp(option, "--min-time-s") == 0) sampling->min_time_s = parse_number(option, value);
    else if (is_bench && strcmp(option, "--max-time-s") == 0) sampling->max_time_s = parse_number(option, value);
    else if (is_bench && strcmp(option, "--issue-ratio") == 0) sampling->issue_ratio = parse_number(option, value);
    else if (is_bench && strcmp(option, "--min-samples") == 0)
      sampling->min_samples = (int)parse_integer(option, value, 1, 10000000);
    else if (is_bench && strcmp(option, "--max-samples") == 0)
      sampling->max_samples = (int)parse_integer(option, value, 1, 10000000);
    else if (is_bench && strcmp(option, "--cpu") == 0) {
      int cpu = (int)parse_integer(option, value, -1, INT_MAX);
      pool.asked = (cores_t){cpu >= 0, {cpu}};
    } else if (is_bench && strcmp(option, "--cpus") == 0) pool.asked = parse_cores(option, value);
    else if (is_bench && strcmp(option, "--input-seed") == 0) options.input_seed = parse_seed(option, value);
    else if (is_classify && strcmp(option, "--input") == 0) input_path = value;
    else if (is_classify && strcmp(option, "--output") == 0) output_path = value;
    else fail(NPAS_EXIT_USAGE, "unknown option of '%s': %s", mode, option);
  }
  if (sampling->min_samples > sampling->max_samples) {
    fail(NPAS_EXIT_USAGE, "--min-samples %d is more than --max-samples %d", sampling->min_samples, sampling->max_samples);
  }
  if (is_classify && (input_path == NULL || output_path == NULL)) {
    fail(NPAS_EXIT_USAGE, "classify needs --input FILE and --output FILE");
  }
  const char *damage = npas_load_plan();
  if (damage != NULL) fail(NPAS_EXIT_PLAN, "%s", damage);
  if (npas_plan.abi != NPAS_PLAN_ABI) {
    fail(NPAS_EXIT_PLAN, "the plan has ABI %d, this runner %d: build the artifact again", npas_plan.abi, NPAS_PLAN_ABI);
  }
  if (wall_limit_s > 0) guard_wall_limit(wall_limit_s);
  if (!is_bench && !is_classify) return info();

  guard_crashes();
  check_instructions(npas_plan.needs);
  flush_denormals();
  if (pool.asked.count > 0) pin(pool.asked.cpus[0]); /* before memory is touched */
  int error = npas_plan.prepare();
  if (npas_kernel_error[0] != '\0') fail(NPAS_EXIT_KERNEL, "a kernel failed: %s", npas_kernel_error);
  if (error != 0) fail(NPAS_EXIT_PLAN, "the plan could not prepare itself: error %d", error);
  mlockall(MCL_CURRENT); /* faults everything in where it is allowed; elsewhere the first run does it */
  int status = is_bench ? bench(&options) : classify(input_path, output_path);
  if (fflush(stdout) != 0) fail(NPAS_EXIT_FILE, "cannot write the report: %s", strerror(errno));
  return status;
}
