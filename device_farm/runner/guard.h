/* How the runner ends: exit codes, one-line errors, the wall-clock limit, the lost link, the crash. */
#ifndef NPAS_GUARD_H
#define NPAS_GUARD_H
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum {
  NPAS_EXIT_OK = 0,
  NPAS_EXIT_USAGE = 2,      /* the command line is wrong */
  NPAS_EXIT_FILE = 3,       /* a file cannot be read or written, or has a wrong size */
  NPAS_EXIT_PLAN = 4,       /* the plan has another ABI, or could not prepare itself */
  NPAS_EXIT_KERNEL = 5,     /* a kernel reported an error */
  NPAS_EXIT_WALL_LIMIT = 6, /* --wall-limit-s has passed */
  NPAS_EXIT_LINK_LOST = 7,  /* stdin ended under --die-with-stdin */
  NPAS_EXIT_MEMORY = 8,     /* out of memory */
  NPAS_EXIT_CRASH = 9,      /* SIGILL, SIGSEGV, SIGBUS or SIGFPE in a kernel */
  NPAS_EXIT_INSTRUCTION = 10, /* the processor lacks instructions that the plan says it needs */
  NPAS_EXIT_CORE = 11       /* a core that was asked for is switched off or not for us */
};

__attribute__((noreturn, format(printf, 2, 3))) static void fail(int status, const char *format, ...) {
  char line[512];
  va_list args;
  va_start(args, format);
  vsnprintf(line, sizeof line, format, args);
  va_end(args);
  for (char *c = line; *c; ++c) {
    if (*c == '\n') *c = ' ';
  }
  fflush(stdout);
  fprintf(stderr, "npas-runner: %s\n", line);
  _exit(status); /* not exit(): the watcher thread may hold stdin's lock */
}

/* From signal handlers: only what is async-signal-safe. */
static void fail_now(int status, const char *line) {
  ssize_t ignored = write(STDERR_FILENO, line, strlen(line));
  (void)ignored;
  _exit(status);
}

static void on_alarm(int signal_number) {
  (void)signal_number;
  fail_now(NPAS_EXIT_WALL_LIMIT, "npas-runner: the wall-clock limit has passed\n");
}

static void on_crash(int signal_number) {
  fail_now(NPAS_EXIT_CRASH,
           signal_number == SIGILL ? "npas-runner: illegal instruction: the processor lacks one that the target has\n"
           : signal_number == SIGFPE ? "npas-runner: arithmetic exception in a kernel\n"
                                     : "npas-runner: a kernel touched memory that is not its own\n");
}

static void guard_crashes(void) {
  const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_crash;
  for (size_t i = 0; i < sizeof signals / sizeof *signals; ++i) sigaction(signals[i], &action, NULL);
}

static void guard_wall_limit(double limit_s) {
  struct itimerval timer;
  struct sigaction action;
  memset(&timer, 0, sizeof timer);
  memset(&action, 0, sizeof action);
  action.sa_handler = on_alarm;
  sigaction(SIGALRM, &action, NULL);
  timer.it_value.tv_sec = (time_t)limit_s;
  timer.it_value.tv_usec = (suseconds_t)((limit_s - (double)timer.it_value.tv_sec) * 1e6);
  setitimer(ITIMER_REAL, &timer, NULL);
}

static void *watch_stdin(void *unused) {
  char buffer[256];
  (void)unused;
  while (read(STDIN_FILENO, buffer, sizeof buffer) > 0) {
  }
  fail_now(NPAS_EXIT_LINK_LOST, "npas-runner: stdin ended, so the link is lost\n");
  return NULL;
}

/* The watcher sleeps in read() and costs the measured thread nothing. All signals go to the main thread. */
static void guard_link(void) {
  pthread_t watcher;
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &old);
  if (pthread_create(&watcher, NULL, watch_stdin, NULL) != 0) fail(NPAS_EXIT_MEMORY, "cannot start a thread");
  pthread_detach(watcher);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size);
  if (memory == NULL) fail(NPAS_EXIT_MEMORY, "cannot allocate %zu x %zu bytes", count, size);
  return memory;
}
#endif
