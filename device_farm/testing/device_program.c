/* What the transport conformance suite runs on a device. One word says what to do. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void pause_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&t, NULL);
}

/* Appends to a file every 20 ms, until stdin ends: shows whether somebody is still alive. */
static int heartbeat(const char *path) {
  for (;;) {
    FILE *file = fopen(path, "a");
    if (file == NULL) return 3;
    fputc('.', file);
    fclose(file);
    struct pollfd stdin_state = {STDIN_FILENO, POLLIN, 0};
    char byte;
    if (poll(&stdin_state, 1, 20) > 0 && read(STDIN_FILENO, &byte, 1) <= 0) return 0;
  }
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  const char *value = argc > 2 ? argv[2] : "";
  if (strcmp(what, "arguments") == 0) { /* each with its NUL */
    for (int i = 2; i < argc; ++i) fwrite(argv[i], 1, strlen(argv[i]) + 1, stdout);
    return 0;
  }
  if (strcmp(what, "exit") == 0) return atoi(value);
  if (strcmp(what, "signal") == 0) return raise(atoi(value));
  if (strcmp(what, "both") == 0) {
    fputs("to stdout", stdout);
    fputs("to stderr", stderr);
    return 0;
  }
  if (strcmp(what, "cat") == 0) { /* stdin to stdout */
    static char buffer[4096];
    for (ssize_t n; (n = read(STDIN_FILENO, buffer, sizeof buffer)) > 0;) fwrite(buffer, 1, (size_t)n, stdout);
    return 0;
  }
  if (strcmp(what, "bytes") == 0) { /* so many, 0 to 255 in turn */
    for (long i = 0; i < atol(value); ++i) putchar((int)(i & 255));
    return 0;
  }
  if (strcmp(what, "stdin-is-open") == 0) { /* 0 if it neither ends nor says anything for so many ms */
    struct pollfd stdin_state = {STDIN_FILENO, POLLIN, 0};
    return poll(&stdin_state, 1, atoi(value)) == 0 ? 0 : 1;
  }
  if (strcmp(what, "write") == 0) { /* a file in the working directory */
    FILE *file = fopen(value, "wb");
    if (file == NULL) return 3;
    fputs("written on the device", file);
    return fclose(file) == 0 ? 0 : 3;
  }
  if (strcmp(what, "endless") == 0) {
    for (;;) puts("and on and on and on and on and on and on and on and on and on");
  }
  if (strcmp(what, "heartbeat") == 0) return heartbeat(value);
  if (strcmp(what, "orphan") == 0) { /* ends at once and leaves a child that beats */
    if (fork() == 0) return heartbeat(value);
    pause_ms(100);
    return 0;
  }
  fprintf(stderr, "unknown: %s\n", what);
  return 2;
}
