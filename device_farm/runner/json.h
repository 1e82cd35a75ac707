/* The little JSON that the runner writes to stdout. */
#ifndef NPAS_JSON_H
#define NPAS_JSON_H
#include <math.h>
#include <stdio.h>

static void json_string(const char *text) {
  putchar('"');
  for (const unsigned char *c = (const unsigned char *)text; *c; ++c) {
    if (*c == '"' || *c == '\\') printf("\\%c", *c);
    else if (*c < 0x20 || *c > 0x7e) printf("\\u%04x", *c); /* latin-1 at worst: names are ASCII */
    else putchar(*c);
  }
  putchar('"');
}

/* Nine digits give a float32 back exactly; JSON has no NaN, so what is not finite is null. */
static void json_float(float value) {
  if (isfinite(value)) printf("%.9g", (double)value);
  else fputs("null", stdout);
}
#endif
