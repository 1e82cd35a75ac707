/* What table.c (generated, one for each set of kernels) offers to the interpreter: kernels by number. */
#ifndef NPAS_PROGRAM_H
#define NPAS_PROGRAM_H
#include <stdint.h>

typedef union {
  void *pointer;
  int32_t integer;
  float real;
} npas_value_t;

typedef void npas_function_t(void);

typedef struct {
  void (*call)(npas_function_t *function, const npas_value_t *arguments); /* knows the function's signature */
  npas_function_t *function;
  int32_t arguments;
} npas_kernel_t;

extern const npas_kernel_t npas_kernels[];
extern const int32_t npas_kernel_count;
extern const char npas_program_key[]; /* a plan names the program that it was made for */
#endif
