/* Instructions that not every processor of an architecture has: asked for before one of them runs. */
#ifndef NPAS_INSTRUCTIONS_H
#define NPAS_INSTRUCTIONS_H
#include "guard.h"
#include "plan.h"
#if defined(__aarch64__)
#include <sys/auxv.h>
enum { ARM_HWCAP_FPHP = 1 << 9, ARM_HWCAP_ASIMDHP = 1 << 10 }; /* as in Linux's asm/hwcap.h */
#endif

static int has_half_arithmetic(void) {
#if defined(__aarch64__)
  const unsigned long wanted = ARM_HWCAP_FPHP | ARM_HWCAP_ASIMDHP;
  return (getauxval(AT_HWCAP) & wanted) == wanted;
#else
  return 0;
#endif
}

static void check_instructions(uint32_t needs) {
  if (needs & NPAS_NEEDS_HALF && !has_half_arithmetic()) {
    fail(NPAS_EXIT_INSTRUCTION, "the processor lacks half-precision arithmetic (fphp and asimdhp, ARMv8.2), which this "
                                "artifact needs: measure this device with precision fp32");
  }
}
#endif
