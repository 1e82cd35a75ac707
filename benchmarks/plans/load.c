/* Keeps a core busy: `memory` streams 128 MB, anything else computes. Ends with its stdin. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  const size_t size = (size_t)64 << 20;
  int memory = argc > 1 && strcmp(argv[1], "memory") == 0;
  char *from = calloc(size, 1), *to = calloc(size, 1);
  volatile double x = 1;
  struct pollfd link = {0, POLLIN, 0};
  if (from == NULL || to == NULL) return 1;
  while (poll(&link, 1, 0) == 0) {
    if (memory) {
      memcpy(to, from, size);
      from[0] = to[size - 1];
    } else {
      for (int i = 0; i < 10000000; ++i) x = x * 1.0000001 + 1e-9;
    }
  }
  return 0;
}
