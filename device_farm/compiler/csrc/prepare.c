#define _GNU_SOURCE
#include "prepare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "plan.h"

void npas_ask_huge_pages(void *memory, int64_t bytes) {
  int64_t whole = bytes / NPAS_HUGE_PAGE * NPAS_HUGE_PAGE;
  if (whole > 0) madvise(memory, (size_t)whole, MADV_HUGEPAGE); /* a refusal costs time only */
}

/* Marks the `count` smallest of uniform(first .. first + total), ties by index. */
static void mark_smallest(uint64_t seed, uint64_t stream, uint64_t first, int32_t total, int32_t count, char *marks) {
  /* Values are multiples of 2^-23 in [-1, 1): bisect the threshold at which `count` is reached. */
  int32_t low = -(1 << 23), high = 1 << 23; /* below(low) <= count < below(high + 1) */
  while (low < high) {
    int32_t middle = low + (high - low + 1) / 2, below = 0;
    for (int32_t i = 0; i < total; ++i) below += npas_uniform(seed, stream, first + (uint64_t)i) * 8388608.0f < (float)middle;
    if (below <= count) low = middle;
    else high = middle - 1;
  }
  int32_t marked = 0;
  for (int32_t i = 0; i < total; ++i) {
    marks[i] = npas_uniform(seed, stream, first + (uint64_t)i) * 8388608.0f < (float)low;
    marked += marks[i];
  }
  for (int32_t i = 0; i < total && marked < count; ++i) {
    if (!marks[i] && npas_uniform(seed, stream, first + (uint64_t)i) * 8388608.0f == (float)low) {
      marks[i] = 1;
      ++marked;
    }
  }
}

static void seed_group(uint64_t seed, const npas_conv_t *conv, const npas_group_t *group, const char *marks,
                       const float *scales) {
  int32_t positions = conv->kernel_height * conv->kernel_width, total = conv->channels * positions, at = 0;
  int32_t sparsity_height = conv->sparsity_height ? conv->sparsity_height : conv->filters;
  int32_t group_size = conv->filters / conv->channel_groups;
  for (int32_t block = 0; block < group->blocks; ++block) {
    int32_t first = group->first_filter + block * group->height;
    int32_t last = first + group->height < conv->filters ? first + group->height : conv->filters;
    group->pointers[block] = at;
    for (int32_t part = first / group_size; part <= (last - 1) / group_size; ++part) {
      int32_t low = part * group_size > first ? part * group_size : first;
      int32_t high = (part + 1) * group_size < last ? (part + 1) * group_size : last;
      for (int32_t position = 0; position < positions; ++position) {
        for (int32_t channel = 0; channel < conv->channels; channel += group->tap_channels) {
          int32_t behind = channel + group->tap_channels < conv->channels ? channel + group->tap_channels : conv->channels;
          int alive = 0;
          for (int32_t s = low / sparsity_height; s <= (high - 1) / sparsity_height; ++s) {
            for (int32_t c = channel; c < behind; ++c) alive |= marks[s * total + c * positions + position];
          }
          if (!alive) continue;
          for (int32_t i = 0; i < group->tap_channels * group->height; ++i) {
            int32_t filter = first + i % group->height, s = filter / sparsity_height, c = channel + i / group->height;
            int32_t tap = c * positions + position; /* torch's order */
            float value = 0.0f;
            if (filter >= low && filter < high && c < behind && marks[s * total + tap]) {
              value = npas_uniform(seed, conv->stream + 1, (uint64_t)filter * (uint64_t)total + (uint64_t)tap) * scales[s];
            }
            group->weights[(int64_t)at * group->tap_channels * group->height + i] = value;
          }
          group->taps[at++] = conv->positions[position] + (part * conv->channels + channel) * conv->channel_stride;
        }
      }
    }
  }
  group->pointers[group->blocks] = at;
}

static void seed_bias(uint64_t seed, const npas_conv_t *conv) {
  for (int32_t filter = 0; filter < conv->padded_filters; ++filter) {
    conv->bias[filter] = filter < conv->filters ? npas_uniform(seed, conv->stream + 2, (uint64_t)filter) * 0.125f : 0.0f;
  }
}

/* Marks the living taps of sparsity block `block`: whole units, then those of fewer channels, which are numbered last. */
static void mark_taps(uint64_t seed, const npas_conv_t *conv, int32_t block, int32_t kept, char *units, char *taps) {
  int32_t positions = conv->kernel_height * conv->kernel_width, unit_channels = conv->unit_channels;
  int32_t rows = positions / conv->unit_positions; /* units of the same channels */
  int32_t whole = conv->channels / unit_channels * rows, left = conv->channels % unit_channels;
  int32_t partial = left ? rows : 0, kept_whole = conv->whole[block];
  int32_t kept_partial = left ? (kept - kept_whole * unit_channels * conv->unit_positions) / (left * conv->unit_positions) : 0;
  uint64_t first = (uint64_t)block * (uint64_t)(whole + partial);
  mark_smallest(seed, conv->stream, first, whole, kept_whole, units);
  mark_smallest(seed, conv->stream, first + (uint64_t)whole, partial, kept_partial, units + whole);
  for (int32_t channel = 0; channel < conv->channels; ++channel) {
    for (int32_t position = 0; position < positions; ++position) {
      *taps++ = units[channel / unit_channels * rows + position / conv->unit_positions];
    }
  }
}

typedef struct { /* of sparsity blocks */
  int32_t height, total;
  char *marks; /* [blocks][total] living taps */
  float *scales;
} living_t;

static void free_living(living_t *living) { free(living->marks), free(living->scales); }

/* 0 = well, else out of memory; then nothing is to be freed. */
static int make_living(uint64_t seed, const npas_conv_t *conv, living_t *living) {
  int32_t total = conv->channels * conv->kernel_height * conv->kernel_width;
  int32_t height = conv->sparsity_height ? conv->sparsity_height : conv->filters;
  int32_t blocks = (conv->filters + height - 1) / height;
  *living = (living_t){height, total, malloc((size_t)blocks * (size_t)total), malloc((size_t)blocks * sizeof(float))};
  char *units = malloc((size_t)total);
  if (living->marks == NULL || living->scales == NULL || units == NULL) return free_living(living), free(units), 1;
  for (int32_t block = 0; block < blocks; ++block) {
    int32_t kept = conv->sparsity_height ? conv->kept[block] : total;
    living->scales[block] = sqrtf(conv->gain / (float)(kept > 1 ? kept : 1));
    char *own = living->marks + (int64_t)block * total;
    if (kept == total) memset(own, 1, (size_t)total);
    else if (kept == 0) memset(own, 0, (size_t)total);
    else mark_taps(seed, conv, block, kept, units, own);
  }
  free(units);
  return 0;
}

int npas_seed_conv(uint64_t seed, const npas_conv_t *conv) {
  living_t living;
  if (make_living(seed, conv, &living)) return 1;
  for (int32_t group = 0; group < conv->group_count; ++group) {
    seed_group(seed, conv, &conv->groups[group], living.marks, living.scales);
  }
  seed_bias(seed, conv);
  free_living(&living);
  return 0;
}

/* G of winograd.py, by output pixels of a tile. */
static const double filter_transform_2[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double filter_transform_4[6][3] = {
    {1.0 / 4, 0, 0},
    {-1.0 / 6, -1.0 / 6, -1.0 / 6},
    {-1.0 / 6, 1.0 / 6, -1.0 / 6},
    {1.0 / 24, 1.0 / 12, 1.0 / 6},
    {1.0 / 24, -1.0 / 12, 1.0 / 6},
    {0, 0, 1},
};

static const double stem_transform[7][4] = {
    {-2, 0, 0, 0},
    {-2.0 / 3, -2.0 / 3, -2.0 / 3, -2.0 / 3},
    {-2.0 / 9, 2.0 / 9, -2.0 / 9, 2.0 / 9},
    {16.0 / 9, 8.0 / 9, 4.0 / 9, 2.0 / 9},
    {16.0 / 15, -8.0 / 15, 4.0 / 15, -2.0 / 15},
    {2.0 / 45, 4.0 / 45, 8.0 / 45, 16.0 / 45},
    {0, 0, 0, 1},
};

typedef struct {
  uint64_t seed;
  const npas_conv_t *conv;
  living_t living;
  int32_t tile, taps, gathered, channels; /* channels of the image that is transformed: of a stem, four phases of each */
  int32_t *list;
} transform_t;

/* The channels that block `block` multiplies, into `t->list`: how many. */
static int32_t list_channels(const transform_t *t, const npas_group_t *group, int32_t block) {
  int32_t low = group->first_filter + block * group->height, count = 0;
  int32_t high = low + group->height < t->conv->filters ? low + group->height : t->conv->filters;
  for (int32_t channel = 0; channel < t->channels; ++channel) {
    int lives = !t->gathered;
    for (int32_t s = low / t->living.height; t->gathered && s <= (high - 1) / t->living.height; ++s) {
      const char *taps = t->living.marks + (int64_t)s * t->living.total + channel * 9;
      for (int32_t tap = 0; tap < 9; ++tap) lives |= taps[tap];
    }
    if (lives) t->list[count++] = channel;
  }
  return count;
}

/* The weights of one filter for one channel of the image that is transformed, [taps][taps]. */
static void seed_filter(const transform_t *t, int32_t filter, int32_t channel, double *w) {
  const npas_conv_t *conv = t->conv;
  int32_t stem = t->taps == 4, phase = stem ? channel / conv->channels : 0, step = stem ? 2 : 1, rows = conv->kernel_height;
  int32_t first = channel % conv->channels * rows * rows, s = filter / t->living.height;
  for (int32_t tap = 0; tap < t->taps * t->taps; ++tap) {
    int32_t y = tap / t->taps * step + phase / 2, x = tap % t->taps * step + phase % 2, index = first + y * rows + x;
    int outside = filter >= conv->filters || y >= rows || x >= rows;
    if (outside || !t->living.marks[(int64_t)s * t->living.total + index]) {
      w[tap] = 0;
    } else {
      uint64_t place = (uint64_t)filter * (uint64_t)t->living.total + (uint64_t)index;
      w[tap] = npas_uniform(t->seed, conv->stream + 1, place) * t->living.scales[s];
    }
  }
}

static void transform_filter(const transform_t *t, const double *w, npas_element_t *planes, int64_t plane_stride) {
  const double *g = t->taps == 4 ? stem_transform[0] : t->tile == 2 ? filter_transform_2[0] : filter_transform_4[0];
  int32_t taps = t->taps, size = t->tile + taps - 1;
  double rows[7][4];
  for (int32_t y = 0; y < size; ++y) {
    for (int32_t x = 0; x < taps; ++x) {
      rows[y][x] = 0;
      for (int32_t i = 0; i < taps; ++i) rows[y][x] += g[y * taps + i] * w[i * taps + x];
    }
  }
  for (int32_t plane = 0; plane < size * size; ++plane) {
    const double *row = rows[plane / size], *column = &g[plane % size * taps];
    double value = 0;
    for (int32_t i = 0; i < taps; ++i) value += row[i] * column[i];
    planes[plane * plane_stride] = (float)value; /* rounded as on the host: to float32 first */
  }
}

static void seed_winograd_group(const transform_t *t, const npas_group_t *group) {
  int64_t plane_floats = 0, at = 0;
  for (int32_t block = 0; block < group->blocks; ++block) {
    plane_floats += (int64_t)list_channels(t, group, block) * group->height;
  }
  for (int32_t block = 0, listed = 0; block < group->blocks; ++block) {
    int32_t first = group->first_filter + block * group->height, count = list_channels(t, group, block);
    if (t->gathered) {
      memcpy(group->taps + listed, t->list, (size_t)count * sizeof *t->list);
      group->pointers[block] = listed;
      group->pointers[block + 1] = listed += count;
    }
    for (int32_t i = 0; i < count; ++i) {
      for (int32_t filter = first; filter < first + group->height; ++filter, ++at) {
        double w[16];
        seed_filter(t, filter, t->list[i], w);
        transform_filter(t, w, group->weights + at, plane_floats);
      }
    }
  }
}

int npas_seed_winograd(uint64_t seed, const npas_conv_t *conv, int32_t tile, int32_t taps, int32_t gathered) {
  transform_t t = {seed, conv, {0}, tile, taps, gathered, taps == 4 ? 4 * conv->channels : conv->channels, NULL};
  if (make_living(seed, conv, &t.living)) return 1;
  t.list = malloc((size_t)t.channels * sizeof *t.list);
  if (t.list == NULL) return free_living(&t.living), 1;
  for (int32_t i = 0; i < conv->group_count; ++i) seed_winograd_group(&t, &conv->groups[i]);
  seed_bias(seed, conv);
  free_living(&t.living), free(t.list);
  return 0;
}

void npas_seed_depthwise(uint64_t seed, uint64_t stream, int32_t channels, int32_t padded, int32_t taps, float gain,
                         npas_element_t *weights, npas_element_t *bias) {
  float scale = sqrtf(gain / (float)taps);
  for (int32_t channel = 0; channel < padded; ++channel) {
    for (int32_t tap = 0; tap < taps; ++tap) {
      uint64_t index = (uint64_t)channel * (uint64_t)taps + (uint64_t)tap;
      weights[tap * padded + channel] = channel < channels ? npas_uniform(seed, stream + 1, index) * scale : 0.0f;
    }
    bias[channel] = channel < channels ? npas_uniform(seed, stream + 2, (uint64_t)channel) * 0.125f : 0.0f;
  }
}

int npas_seed_index(uint64_t seed, uint64_t stream, int32_t channels, int32_t places, int32_t *index) {
  char *marks = malloc((size_t)places);
  if (marks == NULL) return 1;
  mark_smallest(seed, stream, 0, places, channels, marks);
  for (int32_t place = 0; place < places; ++place) {
    if (marks[place]) *index++ = place;
  }
  free(marks);
  return 0;
}

void npas_zero_border(npas_element_t *buffer, int32_t top, int32_t bottom, int32_t height, int32_t left, int32_t right,
                      int32_t row_stride) {
  memset(buffer, 0, sizeof(npas_element_t) * ((size_t)top * (size_t)row_stride + (size_t)left));
  npas_element_t *row = buffer + (int64_t)top * row_stride;
  /* The right border of a row and the left border of the next one are neighbours. */
  for (int32_t y = 1; y < height; ++y) {
    memset(row + row_stride - right, 0, sizeof(npas_element_t) * ((size_t)left + (size_t)right));
    row += row_stride;
  }
  memset(row + row_stride - right, 0, sizeof(npas_element_t) * ((size_t)right + (size_t)bottom * (size_t)row_stride));
}

/* Rows at once where pixels lie as close as in the flat image: a network's own input mostly does. */
void npas_copy_in(npas_element_t *image, int32_t row_stride, int32_t pixel_stride, const float *flat, int32_t height,
                  int32_t width, int32_t channels) {
  int whole = pixel_stride == channels;
  int32_t pieces = whole ? 1 : width, length = whole ? width * channels : channels;
  for (int32_t y = 0; y < height; ++y) {
    npas_element_t *row = image + (int64_t)y * row_stride;
    for (int32_t x = 0; x < pieces; ++x, flat += length) {
      for (int32_t i = 0; i < length; ++i) row[(int64_t)x * pixel_stride + i] = flat[i];
    }
  }
}

void npas_copy_out(float *flat, const npas_element_t *image, int32_t row_stride, int32_t pixel_stride, int32_t height,
                   int32_t width, int32_t channels) {
  int whole = pixel_stride == channels;
  int32_t pieces = whole ? 1 : width, length = whole ? width * channels : channels;
  for (int32_t y = 0; y < height; ++y) {
    const npas_element_t *row = image + (int64_t)y * row_stride;
    for (int32_t x = 0; x < pieces; ++x, flat += length) {
      for (int32_t i = 0; i < length; ++i) flat[i] = row[(int64_t)x * pixel_stride + i];
    }
  }
}
