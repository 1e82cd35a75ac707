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
        for (int32_t channel = 0; channel < conv->channels; ++channel) {
          int32_t tap = channel * positions + position; /* torch's order */
          int alive = 0;
          for (int32_t s = low / sparsity_height; s <= (high - 1) / sparsity_height; ++s) alive |= marks[s * total + tap];
          if (!alive) continue;
          for (int32_t f = 0; f < group->height; ++f) {
            int32_t filter = first + f, s = filter / sparsity_height;
            float value = 0.0f;
            if (filter >= low && filter < high && marks[s * total + tap]) {
              value = npas_uniform(seed, conv->stream + 1, (uint64_t)filter * (uint64_t)total + (uint64_t)tap) * scales[s];
            }
            group->weights[(int64_t)at * group->height + f] = value;
          }
          group->taps[at++] = position / conv->kernel_width * conv->line_stride +
                              position % conv->kernel_width * conv->pixel_stride + part * conv->channels + channel;
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

/* The channels that block `block` multiplies, into `list`: how many. */
static int32_t list_channels(const npas_conv_t *conv, const npas_group_t *group, const living_t *living, int32_t block,
                             int32_t gathered, int32_t *list) {
  int32_t low = group->first_filter + block * group->height, count = 0;
  int32_t high = low + group->height < conv->filters ? low + group->height : conv->filters;
  for (int32_t channel = 0; channel < conv->channels; ++channel) {
    int lives = !gathered;
    for (int32_t s = low / living->height; s <= (high - 1) / living->height; ++s) {
      const char *taps = living->marks + (int64_t)s * living->total + channel * 9;
      for (int32_t tap = 0; tap < 9; ++tap) lives |= taps[tap];
    }
    if (lives) list[count++] = channel;
  }
  return count;
}

static void transform_filter(const double w[9], int32_t tile, float *planes, int64_t plane_stride) {
  const double(*g)[3] = tile == 2 ? filter_transform_2 : filter_transform_4;
  int32_t size = tile + 2;
  double rows[6][3];
  for (int32_t y = 0; y < size; ++y) {
    for (int32_t x = 0; x < 3; ++x) rows[y][x] = g[y][0] * w[x] + g[y][1] * w[3 + x] + g[y][2] * w[6 + x];
  }
  for (int32_t plane = 0; plane < size * size; ++plane) {
    const double *row = rows[plane / size], *column = g[plane % size];
    planes[plane * plane_stride] = (float)(row[0] * column[0] + row[1] * column[1] + row[2] * column[2]);
  }
}

static void seed_winograd_group(uint64_t seed, const npas_conv_t *conv, const npas_group_t *group,
                                const living_t *living, int32_t tile, int32_t gathered, int32_t *list) {
  int64_t plane_floats = 0, at = 0;
  for (int32_t block = 0; block < group->blocks; ++block) {
    plane_floats += (int64_t)list_channels(conv, group, living, block, gathered, list) * group->height;
  }
  for (int32_t block = 0, listed = 0; block < group->blocks; ++block) {
    int32_t first = group->first_filter + block * group->height;
    int32_t count = list_channels(conv, group, living, block, gathered, list);
    if (gathered) {
      memcpy(group->taps + listed, list, (size_t)count * sizeof *list);
      group->pointers[block] = listed;
      group->pointers[block + 1] = listed += count;
    }
    for (int32_t i = 0; i < count; ++i) {
      for (int32_t filter = first; filter < first + group->height; ++filter, ++at) {
        double w[9] = {0};
        for (int32_t tap = list[i] * 9; tap < list[i] * 9 + 9 && filter < conv->filters; ++tap) {
          int32_t s = filter / living->height;
          if (!living->marks[(int64_t)s * living->total + tap]) continue;
          uint64_t place = (uint64_t)filter * (uint64_t)living->total + (uint64_t)tap;
          w[tap % 9] = npas_uniform(seed, conv->stream + 1, place) * living->scales[s];
        }
        transform_filter(w, tile, group->weights + at, plane_floats);
      }
    }
  }
}

int npas_seed_winograd(uint64_t seed, const npas_conv_t *conv, int32_t tile, int32_t gathered) {
  living_t living;
  if (make_living(seed, conv, &living)) return 1;
  int32_t *list = malloc((size_t)conv->channels * sizeof *list);
  if (list == NULL) return free_living(&living), 1;
  for (int32_t i = 0; i < conv->group_count; ++i) {
    seed_winograd_group(seed, conv, &conv->groups[i], &living, tile, gathered, list);
  }
  seed_bias(seed, conv);
  free_living(&living), free(list);
  return 0;
}

void npas_seed_depthwise(uint64_t seed, uint64_t stream, int32_t channels, int32_t padded, int32_t taps, float gain,
                         float *weights, float *bias) {
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

void npas_zero_border(float *buffer, int32_t top, int32_t bottom, int32_t height, int32_t left, int32_t right,
                      int32_t row_stride) {
  memset(buffer, 0, sizeof(float) * ((size_t)top * (size_t)row_stride + (size_t)left));
  float *row = buffer + (int64_t)top * row_stride;
  /* The right border of a row and the left border of the next one are neighbours. */
  for (int32_t y = 1; y < height; ++y) {
    memset(row + row_stride - right, 0, sizeof(float) * ((size_t)left + (size_t)right));
    row += row_stride;
  }
  memset(row + row_stride - right, 0, sizeof(float) * ((size_t)right + (size_t)bottom * (size_t)row_stride));
}

/* Rows at once where pixels lie as close as in the flat image: a network's own input mostly does. */
void npas_copy_in(float *image, int32_t row_stride, int32_t pixel_stride, const float *flat, int32_t height,
                  int32_t width, int32_t channels) {
  int whole = pixel_stride == channels;
  int32_t pieces = whole ? 1 : width, length = whole ? width * channels : channels;
  for (int32_t y = 0; y < height; ++y) {
    float *row = image + (int64_t)y * row_stride;
    for (int32_t x = 0; x < pieces; ++x, flat += length) {
      for (int32_t i = 0; i < length; ++i) row[(int64_t)x * pixel_stride + i] = flat[i];
    }
  }
}

void npas_copy_out(float *flat, const float *image, int32_t row_stride, int32_t pixel_stride, int32_t height,
                   int32_t width, int32_t channels) {
  int whole = pixel_stride == channels;
  int32_t pieces = whole ? 1 : width, length = whole ? width * channels : channels;
  for (int32_t y = 0; y < height; ++y) {
    const float *row = image + (int64_t)y * row_stride;
    for (int32_t x = 0; x < pieces; ++x, flat += length) {
      for (int32_t i = 0; i < length; ++i) flat[i] = row[(int64_t)x * pixel_stride + i];
    }
  }
}
