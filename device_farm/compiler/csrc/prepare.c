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
            int32_t lanes = group->lane_channels, row = group->height * lanes; /* filters, channels of a lane inside */
            int32_t filter = first + i % row / lanes, s = filter / sparsity_height, c = channel + i / row * lanes + i % lanes;
            int32_t tap = c * positions + position; /* torch's order */
            float value = 0.0f;
            if (filter >= low && filter < high && c < behind && marks[s * total + tap]) {
              value = npas_uniform(seed, conv->stream + 1, (uint64_t)filter * (uint64_t)total + (uint64_t)tap) * scales[s];
            }
            group->weights[(int64_t)at * group->tap_channels * group->height + i] = value;
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

int npas_seed_conv(uint64_t seed, const npas_conv_t *conv) {
  int32_t total = conv->channels * conv->kernel_height * conv->kernel_width;
  int32_t height = conv->sparsity_height ? conv->sparsity_height : conv->filters;
  int32_t blocks = (conv->filters + height - 1) / height;
  char *marks = malloc((size_t)blocks * (size_t)total), *units = malloc((size_t)total);
  float *scales = malloc((size_t)blocks * sizeof *scales);
  if (marks == NULL || units == NULL || scales == NULL) return free(marks), free(units), free(scales), 1;
  for (int32_t block = 0; block < blocks; ++block) {
    int32_t kept = conv->sparsity_height ? conv->kept[block] : total;
    scales[block] = sqrtf(conv->gain / (float)(kept > 1 ? kept : 1));
    char *own = marks + (int64_t)block * total;
    if (kept == total) memset(own, 1, (size_t)total);
    else if (kept == 0) memset(own, 0, (size_t)total);
    else mark_taps(seed, conv, block, kept, units, own);
  }
  for (int32_t group = 0; group < conv->group_count; ++group) seed_group(seed, conv, &conv->groups[group], marks, scales);
  seed_bias(seed, conv);
  free(marks), free(units), free(scales);
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

/* The weights of one filter for one channel of the image that is transformed, [taps][taps]. */
static void seed_filter(uint64_t seed, const npas_conv_t *conv, int32_t filter, int32_t channel, int32_t taps, float scale,
                        double *w) {
  int32_t stem = taps == 4, phase = stem ? channel / conv->channels : 0, step = stem ? 2 : 1, rows = conv->kernel_height;
  uint64_t first = ((uint64_t)filter * (uint64_t)conv->channels + (uint64_t)(channel % conv->channels)) * (uint64_t)(rows * rows);
  for (int32_t tap = 0; tap < taps * taps; ++tap) {
    int32_t y = tap / taps * step + phase / 2, x = tap % taps * step + phase % 2;
    int outside = filter >= conv->filters || y >= rows || x >= rows;
    w[tap] = outside ? 0.0f : npas_uniform(seed, conv->stream + 1, first + (uint64_t)(y * rows + x)) * scale;
  }
}

void npas_seed_winograd(uint64_t seed, const npas_conv_t *conv, int32_t tile, int32_t taps) {
  const double *g = taps == 4 ? stem_transform[0] : tile == 2 ? filter_transform_2[0] : filter_transform_4[0];
  int32_t size = tile + taps - 1, total = conv->channels * conv->kernel_height * conv->kernel_width;
  int32_t channels = taps == 4 ? 4 * conv->channels : conv->channels;
  float scale = sqrtf(conv->gain / (float)total);
  for (int32_t i = 0; i < conv->group_count; ++i) {
    const npas_group_t *group = &conv->groups[i];
    int64_t block_floats = (int64_t)channels * group->height, plane_floats = group->blocks * block_floats;
    for (int64_t at = 0; at < plane_floats; ++at) { /* block, channel, filter of the block */
      int32_t filter = group->first_filter + (int32_t)(at / block_floats * group->height + at % group->height);
      double w[16], rows[7][4];
      seed_filter(seed, conv, filter, (int32_t)(at % block_floats / group->height), taps, scale, w);
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
        group->weights[plane * plane_floats + at] = (float)value; /* rounded as on the host: to float32 first */
      }
    }
  }
  seed_bias(seed, conv);
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
