/* Runs the plan that lies behind the program in its own file. Kernels do the work; this only walks lists of calls.
 *
 *   program (ELF) | parameters, if they are not seeded, at a whole page | tape | trailer
 *
 * plan.py writes the tape, in the order in which it is read here. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"
#include "prepare.h"
#include "program.h"
#include "tape.h"

#define TRAILER_MAGIC "npasplan"
#define MOST_BYTES (INT64_C(1) << 36)
enum { TAPE_ABI = 2, MOST_MOVES = 4 };

typedef struct { /* the last bytes of the file */
  int64_t parameters_at, parameters_bytes, tape_at, tape_words;
  char magic[8];
} trailer_t;

/* What a call's arguments may move by while a fused block runs. */
enum { ROW, FIRST, SLOT, COUNT, VARIABLES };

typedef struct {
  npas_value_t *argument, origin;
  int64_t stride; /* bytes of a pointer, units of an integer */
  int32_t variable, is_pointer;
} move_t;

typedef struct {
  const npas_kernel_t *kernel;
  npas_value_t *arguments;
  move_t moves[MOST_MOVES];
  int32_t move_count;
} call_t;

typedef struct {
  int32_t count;
  call_t *calls;
} calls_t;

typedef struct {
  calls_t expand;
  call_t depthwise;
} chunk_t;

typedef struct { /* steps.py: Bands */
  int32_t count, first_row, rows, output_rows, stride, reach, first_expanded, expanded_rows, span, chunk_count;
  chunk_t *chunks;
  calls_t project;
} bands_t;

typedef struct {
  npas_element_t *place;
  int32_t top, bottom, height, left, right, row_stride;
} border_t;

typedef struct {
  int32_t border_count;
  border_t *borders;
  calls_t calls;
  bands_t *bands; /* or NULL */
} part_t;

typedef struct { /* parts that threads run side by side */
  int32_t part_count;
  part_t *parts;
} phase_t;

typedef struct {
  int32_t phase_count;
  phase_t *phases;
} step_t;

typedef struct {
  npas_element_t *place;
  int32_t row_stride, pixel_stride, height, width, channels;
} image_t;

static struct {
  int64_t *words;
  tape_t seeds; /* what is left of the tape once the steps are read */
  uint64_t seed;
  unsigned char *arena, *parameters;
  int64_t arena_bytes, parameters_bytes;
  const int32_t *tables; /* on the tape */
  int32_t table_numbers;
  trailer_t trailer;
  image_t input, output;
  int32_t threads;
  const phase_t *phase; /* that runs on all threads now */
} self;

npas_plan_t npas_plan;

/* --- running ------------------------------------------------------------------------------------------------------ */

/* Moves write into the call's own arguments: a call belongs to one part, so to one thread. */
static inline void run_call(const call_t *call, const int32_t *variables) {
  for (int32_t i = 0; i < call->move_count; ++i) {
    const move_t *move = &call->moves[i];
    int64_t by = variables[move->variable] * move->stride;
    if (move->is_pointer) move->argument->pointer = (char *)move->origin.pointer + by;
    else move->argument->integer = move->origin.integer + (int32_t)by;
  }
  call->kernel->call(call->kernel->function, call->arguments);
}

static void run_calls(const calls_t *calls, const int32_t *variables) {
  for (int32_t i = 0; i < calls->count; ++i) run_call(&calls->calls[i], variables);
}

/* Each band expands its new rows only, in runs that end where the ring does. The last band is shifted back to fit. */
static void run_bands(const bands_t *bands) {
  int32_t variables[VARIABLES] = {0}, done = bands->first_expanded;
  for (int32_t band = 0; band < bands->count; ++band) {
    int32_t row = bands->first_row + band * bands->rows, latest = bands->output_rows - bands->rows;
    if (row > latest) row = latest;
    int32_t last = row * bands->stride + bands->reach;
    if (last > bands->expanded_rows) last = bands->expanded_rows;
    if (last < done) last = done;
    variables[ROW] = row;
    for (int32_t i = 0; i < bands->chunk_count; ++i) {
      const chunk_t *chunk = &bands->chunks[i];
      for (int32_t first = done, count; first < last; first += count) {
        int32_t slot = (first + bands->span - bands->reach) % bands->span; /* of the padded row */
        count = last - first < bands->span - slot ? last - first : bands->span - slot;
        variables[FIRST] = first, variables[SLOT] = slot, variables[COUNT] = count;
        run_calls(&chunk->expand, variables);
      }
      run_call(&chunk->depthwise, variables);
    }
    run_calls(&bands->project, variables);
    done = last;
  }
}

static void run_part(const part_t *part) {
  for (int32_t i = 0; i < part->border_count; ++i) {
    const border_t *b = &part->borders[i];
    npas_zero_border(b->place, b->top, b->bottom, b->height, b->left, b->right, b->row_stride);
  }
  run_calls(&part->calls, NULL);
  if (part->bands != NULL) run_bands(part->bands);
}

static void run_part_of_phase(int32_t index) {
  if (index < self.phase->part_count) run_part(&self.phase->parts[index]);
}

static void run_step(const void *state) {
  const step_t *step = state;
  for (int32_t i = 0; i < step->phase_count; ++i) {
    const phase_t *phase = &step->phases[i];
    if (phase->part_count > 1) {
      self.phase = phase; /* npas_parallel makes it known to the other threads */
      npas_parallel(run_part_of_phase);
    } else {
      run_part(phase->parts);
    }
  }
}

static void set_input(const float *nhwc) {
  const image_t *x = &self.input;
  npas_copy_in(x->place, x->row_stride, x->pixel_stride, nhwc, x->height, x->width, x->channels);
}

static void get_output(float *flat) {
  const image_t *y = &self.output;
  npas_copy_out(flat, y->place, y->row_stride, y->pixel_stride, y->height, y->width, y->channels);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void *allocate(int64_t count, size_t size) {
  void *memory = calloc(count > 0 ? (size_t)count : 1, size);
  if (memory == NULL) {
    fputs("npas-runner: out of memory while reading the plan\n", stderr);
    _exit(8); /* NPAS_EXIT_MEMORY of the runner */
  }
  return memory;
}

static npas_element_t *in_arena(tape_t *tape, int64_t offset) {
  if (offset < 0 || offset > self.arena_bytes / (int64_t)sizeof(npas_element_t)) tape->damaged = 1;
  return (npas_element_t *)self.arena + (tape->damaged ? 0 : offset);
}

static npas_element_t *in_parameters(tape_t *tape, int64_t offset) {
  if (offset < 0 || offset > self.parameters_bytes / (int64_t)sizeof(npas_element_t)) tape->damaged = 1;
  return (npas_element_t *)self.parameters + (tape->damaged ? 0 : offset);
}

static int32_t *in_integers(tape_t *tape, int64_t offset) {
  if (offset < 0 || offset > self.parameters_bytes / 4) tape->damaged = 1;
  return (int32_t *)self.parameters + (tape->damaged ? 0 : offset);
}

static int32_t *in_tables(tape_t *tape, int64_t offset) {
  if (offset < 0 || offset > self.table_numbers) tape->damaged = 1;
  return (int32_t *)(uintptr_t)self.tables + (tape->damaged ? 0 : offset);
}

/* One word an argument: what it is in the lowest byte, how many moves in the next, its value above. */
enum { INTEGER, REAL, ARENA, PARAMETERS, INTEGERS, LINES, TABLE };

static call_t read_call(tape_t *tape, const int32_t *lines) {
  call_t call = {0};
  call.kernel = &npas_kernels[tape_range(tape, 0, npas_kernel_count - 1)];
  call.arguments = allocate(call.kernel->arguments, sizeof *call.arguments);
  for (int32_t i = 0; i < call.kernel->arguments; ++i) {
    int64_t word = tape_word(tape), value = word >> 16;
    int kind = (int)(word & 255), moves = (int)(word >> 8 & 255), pointer = kind >= ARENA;
    int64_t size = pointer ? kind < INTEGERS ? (int64_t)sizeof(npas_element_t) : 4 : 1;
    npas_value_t *argument = &call.arguments[i];
    switch (kind) {
      case INTEGER: argument->integer = (int32_t)value; break;
      case REAL: memcpy(&argument->real, &(uint32_t){(uint32_t)value}, 4); break;
      case ARENA: argument->pointer = in_arena(tape, value); break;
      case PARAMETERS: argument->pointer = in_parameters(tape, value); break;
      case INTEGERS: argument->pointer = in_integers(tape, value); break;
      case TABLE: argument->pointer = in_tables(tape, value); break;
      case LINES: argument->pointer = (void *)(uintptr_t)lines; break;
      default: tape->damaged = 1;
    }
    for (; moves > 0; --moves) {
      int32_t variable = (int32_t)tape_range(tape, 0, VARIABLES - 1);
      int64_t stride = tape_word(tape);
      if (call.move_count == MOST_MOVES) tape->damaged = 1;
      if (tape->damaged) break;
      call.moves[call.move_count++] = (move_t){argument, *argument, size * stride, variable, pointer};
    }
  }
  return call;
}

static calls_t read_calls(tape_t *tape, const int32_t *lines) {
  calls_t calls = {.count = tape_count(tape)};
  calls.calls = allocate(calls.count, sizeof *calls.calls);
  for (int32_t i = 0; i < calls.count && !tape->damaged; ++i) calls.calls[i] = read_call(tape, lines);
  return calls;
}

static bands_t *read_bands(tape_t *tape) {
  bands_t *bands = allocate(1, sizeof *bands);
  int32_t line_count;
  bands->count = tape_int(tape), bands->first_row = tape_int(tape), bands->rows = tape_int(tape);
  bands->output_rows = tape_int(tape), bands->stride = tape_int(tape), bands->reach = tape_int(tape);
  bands->first_expanded = tape_int(tape), bands->expanded_rows = tape_int(tape);
  bands->span = (int32_t)tape_range(tape, 1, INT32_MAX);
  const int32_t *lines = tape_integers(tape, &line_count);
  bands->chunk_count = tape_count(tape);
  bands->chunks = allocate(bands->chunk_count, sizeof *bands->chunks);
  for (int32_t i = 0; i < bands->chunk_count && !tape->damaged; ++i) {
    bands->chunks[i].expand = read_calls(tape, lines);
    bands->chunks[i].depthwise = read_call(tape, lines);
  }
  bands->project = read_calls(tape, lines);
  return bands;
}

static part_t read_part(tape_t *tape) {
  part_t part = {.border_count = tape_count(tape)};
  part.borders = allocate(part.border_count, sizeof *part.borders);
  for (int32_t i = 0; i < part.border_count && !tape->damaged; ++i) {
    border_t *border = &part.borders[i];
    border->place = in_arena(tape, tape_word(tape));
    border->top = tape_int(tape), border->bottom = tape_int(tape), border->height = tape_int(tape);
    border->left = tape_int(tape), border->right = tape_int(tape), border->row_stride = tape_int(tape);
  }
  part.calls = read_calls(tape, NULL);
  if (tape_range(tape, 0, 1)) part.bands = read_bands(tape);
  return part;
}

static npas_step_t read_step(tape_t *tape) {
  step_t *step = allocate(1, sizeof *step);
  npas_step_t row = {.name = tape_text(tape), .kind = tape_text(tape)};
  row.macs = (double)tape_word(tape), row.kept_macs = (double)tape_word(tape);
  step->phase_count = tape_count(tape);
  step->phases = allocate(step->phase_count, sizeof *step->phases);
  for (int32_t i = 0; i < step->phase_count && !tape->damaged; ++i) {
    phase_t *phase = &step->phases[i];
    phase->part_count = (int32_t)tape_range(tape, 1, self.threads);
    phase->parts = allocate(phase->part_count, sizeof *phase->parts);
    for (int32_t part = 0; part < phase->part_count && !tape->damaged; ++part) phase->parts[part] = read_part(tape);
  }
  row.run = run_step, row.state = step;
  return row;
}

static image_t read_image(tape_t *tape) {
  image_t image = {.place = in_arena(tape, tape_word(tape))};
  image.row_stride = tape_int(tape), image.pixel_stride = tape_int(tape);
  image.height = tape_int(tape), image.width = tape_int(tape), image.channels = tape_int(tape);
  return image;
}

/* Zeros, aligned to a huge page; what the alignment costs is given back. */
static unsigned char *map(int64_t bytes) {
  size_t size = ((size_t)bytes + 4096 + 64) / 4096 * 4096, whole = size + NPAS_HUGE_PAGE;
  unsigned char *all = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return NULL;
  size_t before = (NPAS_HUGE_PAGE - (uintptr_t)all % NPAS_HUGE_PAGE) % NPAS_HUGE_PAGE;
  if (before > 0) munmap(all, before);
  munmap(all + before + size, whole - before - size);
  npas_ask_huge_pages(all + before, bytes);
  return all + before;
}

static int read_at(int file, void *to, int64_t bytes, int64_t at) {
  for (char *next = to; bytes > 0;) {
    ssize_t got = pread(file, next, (size_t)bytes, at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 0;
    next += got, at += got, bytes -= got;
  }
  return 1;
}

static int read_trailer(int file, trailer_t *trailer) {
  struct stat status;
  if (fstat(file, &status) != 0 || status.st_size < (off_t)sizeof *trailer) return 0;
  int64_t end = status.st_size - (int64_t)sizeof *trailer;
  return read_at(file, trailer, sizeof *trailer, end) && memcmp(trailer->magic, TRAILER_MAGIC, 8) == 0 &&
         trailer->tape_words >= 0 && trailer->tape_words <= end / 8 && trailer->tape_at >= 0 &&
         trailer->tape_at + 8 * trailer->tape_words == end && trailer->parameters_bytes >= 0 && trailer->parameters_at >= 0 &&
         trailer->parameters_bytes <= end - trailer->parameters_at;
}

static const char *read_plan(tape_t *tape) {
  if (tape_word(tape) != TAPE_ABI) return "the plan has another format than this program: build the artifact again";
  if (strcmp(tape_text(tape), npas_program_key) != 0) return "the plan was made for another program: build the artifact again";
  npas_plan.abi = NPAS_PLAN_ABI, npas_plan.key = tape_text(tape);
  npas_plan.needs = (uint32_t)tape_range(tape, 0, UINT32_MAX);
  self.seed = (uint64_t)tape_word(tape);
  self.arena_bytes = (int64_t)sizeof(npas_element_t) * tape_range(tape, 0, MOST_BYTES / 4);
  self.parameters_bytes = tape_range(tape, 0, MOST_BYTES);
  if (tape->damaged || (self.trailer.parameters_bytes != 0 && self.trailer.parameters_bytes != self.parameters_bytes))
    return "the plan is damaged";
  self.arena = map(self.arena_bytes), self.parameters = map(self.parameters_bytes);
  if (self.arena == NULL || self.parameters == NULL) return "there is not enough memory for the network";
  self.input = read_image(tape), self.output = read_image(tape);
  npas_plan.input_elements = self.input.height * self.input.width * self.input.channels;
  npas_plan.output_elements = self.output.height * self.output.width * self.output.channels;
  self.tables = tape_integers(tape, &self.table_numbers);
  self.threads = (int32_t)tape_range(tape, 1, NPAS_MOST_THREADS);
  npas_plan.step_count = tape_count(tape);
  npas_step_t *steps = allocate(npas_plan.step_count, sizeof *steps);
  for (int32_t i = 0; i < npas_plan.step_count && !tape->damaged; ++i) steps[i] = read_step(tape);
  npas_plan.steps = steps;
  self.seeds = *tape;
  return tape->damaged ? "the plan is damaged" : NULL;
}

static int prepare(void);

const char *npas_load_plan(void) {
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (file < 0) return "the program cannot read its own file, where its plan lies";
  const char *wrong = "the file has no whole plan at its end: it was cut off or damaged";
  if (read_trailer(file, &self.trailer)) {
    self.words = allocate(self.trailer.tape_words, sizeof *self.words);
    wrong = read_at(file, self.words, 8 * self.trailer.tape_words, self.trailer.tape_at) ? NULL : "the plan cannot be read";
  }
  close(file);
  if (wrong != NULL) return wrong;
  npas_plan.prepare = prepare, npas_plan.set_input = set_input, npas_plan.get_output = get_output;
  return read_plan(&(tape_t){self.words, self.words + self.trailer.tape_words, 0});
}

/* --- parameters --------------------------------------------------------------------------------------------------- */

enum { SEED_CONV, SEED_DEPTHWISE, SEED_INDEX };

static int seed_conv(tape_t *tape) {
  npas_conv_t conv = {.stream = (uint64_t)tape_word(tape)};
  int32_t kept_count, positions, tile = tape_int(tape), taps = tape_int(tape), gathered = tape_int(tape); /* of Winograd, or 0 */
  conv.filters = tape_int(tape), conv.channels = tape_int(tape), conv.channel_groups = tape_int(tape);
  conv.kernel_height = tape_int(tape), conv.kernel_width = tape_int(tape);
  conv.positions = tape_integers(tape, &positions), conv.channel_stride = tape_int(tape), conv.gain = tape_float(tape);
  conv.sparsity_height = tape_int(tape), conv.unit_channels = tape_int(tape), conv.unit_positions = tape_int(tape);
  conv.kept = tape_integers(tape, &kept_count), conv.whole = tape_integers(tape, &kept_count);
  conv.padded_filters = tape_int(tape), conv.bias = in_parameters(tape, tape_word(tape));
  conv.group_count = tape_count(tape);
  npas_group_t *groups = allocate(conv.group_count, sizeof *groups);
  for (int32_t i = 0; i < conv.group_count; ++i) {
    groups[i].height = tape_int(tape), groups[i].first_filter = tape_int(tape), groups[i].blocks = tape_int(tape);
    groups[i].tap_channels = tape_int(tape);
    groups[i].weights = in_parameters(tape, tape_word(tape));
    groups[i].taps = in_integers(tape, tape_word(tape)), groups[i].pointers = in_integers(tape, tape_word(tape));
  }
  conv.groups = groups;
  int failed = tape->damaged || positions != conv.kernel_height * conv.kernel_width;
  if (!failed && tile != 0) failed = npas_seed_winograd(self.seed, &conv, tile, taps, gathered);
  else if (!failed) failed = npas_seed_conv(self.seed, &conv);
  free(groups);
  return failed;
}

static int seed_depthwise(tape_t *tape) {
  uint64_t stream = (uint64_t)tape_word(tape);
  int32_t channels = tape_int(tape), padded = tape_int(tape), taps = tape_int(tape);
  float gain = tape_float(tape);
  npas_element_t *weights = in_parameters(tape, tape_word(tape)), *bias = in_parameters(tape, tape_word(tape));
  if (!tape->damaged) npas_seed_depthwise(self.seed, stream, channels, padded, taps, gain, weights, bias);
  return tape->damaged;
}

static int seed_index(tape_t *tape) {
  uint64_t stream = (uint64_t)tape_word(tape);
  int32_t channels = tape_int(tape), places = tape_int(tape);
  int32_t *index = in_integers(tape, tape_word(tape));
  return tape->damaged || npas_seed_index(self.seed, stream, channels, places, index);
}

static int prepare(void) {
  if (self.threads > 1) npas_start_threads(self.threads);
  if (self.trailer.parameters_bytes != 0) {
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int well = file >= 0 && read_at(file, self.parameters, self.parameters_bytes, self.trailer.parameters_at);
    if (file >= 0) close(file);
    return well ? 0 : 2;
  }
  tape_t tape = self.seeds;
  for (int32_t left = tape_count(&tape); left > 0; --left) {
    int failed = 1;
    switch (tape_range(&tape, SEED_CONV, SEED_INDEX)) {
      case SEED_CONV: failed = seed_conv(&tape); break;
      case SEED_DEPTHWISE: failed = seed_depthwise(&tape); break;
      case SEED_INDEX: failed = seed_index(&tape); break;
    }
    if (failed || tape.damaged) return 1;
  }
  return tape.damaged;
}
