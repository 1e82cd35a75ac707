/* What the interpreter of plans asks for besides kernels: seeded weights, borders, the way in and out. */
#ifndef NPAS_PREPARE_H
#define NPAS_PREPARE_H
#include <stdint.h>

#ifndef NPAS_ELEMENT /* the type of activations and weights, as in element.py: float or __fp16 */
#define NPAS_ELEMENT float
#endif
typedef NPAS_ELEMENT npas_element_t;

#define NPAS_HUGE_PAGE 2097152

typedef struct { /* blocks of one height within a convolution, as in packing.py */
  int32_t height, first_filter, blocks, tap_channels; /* a tap is tap_channels adjacent channels */
  npas_element_t *weights; /* [taps of all blocks][tap_channels][height] */
  int32_t *taps;     /* offsets in elements from the window's first pixel */
  int32_t *pointers; /* [blocks + 1] first tap of every block */
} npas_group_t;

typedef struct {
  uint64_t stream; /* of the taps; weights and bias use the next two */
  int32_t filters, channels, channel_groups, kernel_height, kernel_width; /* channels of one group */
  const int32_t *positions; /* elements from the window's first pixel to each position of the kernel */
  int32_t channel_stride;   /* from one channel to the next */
  float gain;
  int32_t sparsity_height; /* filters a sparsity block; 0 = dense */
  const int32_t *kept;     /* taps of every sparsity block */
  const int32_t *whole;    /* whole units among them, as in sparsity.py; the rest are units of fewer channels */
  int32_t unit_channels, unit_positions;
  int32_t group_count, padded_filters;
  const npas_group_t *groups;
  npas_element_t *bias;
} npas_conv_t;

/* Asks for huge pages, where the system has them: a network touches megabytes in every run. Only whole ones count. */
void npas_ask_huge_pages(void *memory, int64_t bytes);

/* Weights, taps and bias from a seed, as weights.py makes them. 0 = well, else out of memory. */
int npas_seed_conv(uint64_t seed, const npas_conv_t *conv);
/* The same weights of a 3x3 layer, or of a 7x7 stem if `taps` is 4, transformed for Winograd tiles of `tile` x `tile`
   pixels (winograd.py), as [planes][channels of all blocks][height]. `gathered`: a block has its living channels only,
   named in taps from its pointer on; else it has all, and taps and pointers are not used. */
int npas_seed_winograd(uint64_t seed, const npas_conv_t *conv, int32_t tile, int32_t taps, int32_t gathered);
void npas_seed_depthwise(uint64_t seed, uint64_t stream, int32_t channels, int32_t padded, int32_t taps, float gain,
                         npas_element_t *weights, npas_element_t *bias);
int npas_seed_index(uint64_t seed, uint64_t stream, int32_t channels, int32_t places, int32_t *index);

/* Zeroes the pixels around an image: rows above and below, columns left and right, all strides in elements. */
void npas_zero_border(npas_element_t *buffer, int32_t top, int32_t bottom, int32_t height, int32_t left, int32_t right,
                      int32_t row_stride);

/* Between flat float32 NHWC and a buffer's own strides. */
void npas_copy_in(npas_element_t *image, int32_t row_stride, int32_t pixel_stride, const float *flat, int32_t height,
                  int32_t width, int32_t channels);
void npas_copy_out(float *flat, const npas_element_t *image, int32_t row_stride, int32_t pixel_stride, int32_t height,
                   int32_t width, int32_t channels);
#endif
