/* The runner's own threads. A step of a plan for several threads is cut into parts (compiler/parting.py); the main thread
 * runs part 0 and the workers the others, and the step is over when all parts are.
 *
 * Two words decide everything, each with one writer: `turn`, which the main thread raises when there is work, and every
 * worker's `done`, the last turn that it has finished. Who waits for a word looks at it for a while and then sleeps on it
 * (futex). A plan for one thread never comes here.
 *
 * Nobody is joined at the end: workers hold nothing but their stacks, and _exit or the return of main end them wherever
 * they are, so that no way out can hang. */
#ifndef NPAS_POOL_H
#define NPAS_POOL_H
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "conditions.h"
#include "guard.h"
#include "plan.h"

/* Longer than the steps that the main thread runs alone between two that are shared: waking up costs 50 us and more. */
enum { SPIN_NS = 200000 };

typedef struct {
  _Alignas(128) _Atomic uint32_t value; /* a cache line, and the one that is fetched with it, for each word */
  _Atomic uint32_t sleepers;
  void (*part)(int32_t index); /* of the turn: travels with it */
} word_t;

static struct {
  word_t turn;
  int32_t threads; /* 0 = none were started: the main thread is alone */
  int64_t spin_ns;
  word_t done[NPAS_MOST_THREADS];
  cpu_set_t obtained[NPAS_MOST_THREADS];
  cores_t asked;
} pool;

/* Denormals cost a hundred cycles on many cores, so a latency would depend on the values of the weights. What is lost
 * is below 1.2e-38. Those of float16 begin at 6e-5, where weights still are: FZ16 stays off. Every thread has its own
 * switch. */
static void flush_denormals(void) {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero */
#elif defined(__aarch64__)
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  fpcr |= UINT64_C(1) << 24; /* FZ */
  __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
#endif
}

static void relax(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static uint32_t peek(word_t *word) { return atomic_load_explicit(&word->value, memory_order_acquire); }

/* Returns when the word is not `old` any more. */
static void await_change(word_t *word, uint32_t old) {
  int64_t until = 0;
  for (unsigned looks = 1; peek(word) == old; ++looks) {
    if (looks % 64 != 0) continue; /* as a rule it is a matter of nanoseconds, and relaxing once may take a hundred */
    relax();
    int64_t now = now_ns();
    if (until == 0) until = now + pool.spin_ns;
    if (now < until) continue;
    /* Sequentially consistent, as in `set`: either we see its value, or it sees that we sleep. */
    atomic_fetch_add(&word->sleepers, 1);
    while (atomic_load(&word->value) == old) syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&word->sleepers, 1);
    return;
  }
}

static void set(word_t *word, uint32_t value) {
  atomic_store(&word->value, value);
  if (atomic_load(&word->sleepers) != 0) syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *work(void *argument) {
  int32_t index = (int32_t)(intptr_t)argument;
  for (uint32_t turn = 0;; set(&pool.done[index], ++turn)) {
    await_change(&pool.turn, turn); /* it rises by one: the main thread waits for all before it goes on */
    pool.turn.part(index);
  }
  return NULL;
}

void npas_parallel(void (*part)(int32_t index)) {
  uint32_t turn = peek(&pool.turn);
  pool.turn.part = part;
  set(&pool.turn, turn + 1);
  part(0);
  for (int32_t index = 1; index < pool.threads; ++index) await_change(&pool.done[index], turn);
}

/* The first turn: every thread goes to its core. With fewer cores than threads they take turns. */
static void settle(int32_t index) {
  flush_denormals();
  if (pool.asked.count > 0) pin(pool.asked.cpus[index % pool.asked.count]);
  if (sched_getaffinity(0, sizeof pool.obtained[index], &pool.obtained[index]) != 0) CPU_ZERO(&pool.obtained[index]);
}

void npas_start_threads(int32_t threads) {
  sigset_t blocked, old;
  cpu_set_t all;
  if (threads < 2 || threads > NPAS_MOST_THREADS) fail(NPAS_EXIT_PLAN, "the plan wants %d threads", (int)threads);
  sigfillset(&blocked); /* the wall-clock limit is the main thread's, a crash is of the thread that has it */
  sigdelset(&blocked, SIGILL), sigdelset(&blocked, SIGSEGV), sigdelset(&blocked, SIGBUS), sigdelset(&blocked, SIGFPE);
  pthread_sigmask(SIG_BLOCK, &blocked, &old);
  pool.threads = threads;
  for (int32_t index = 1; index < threads; ++index) {
    pthread_t worker;
    if (pthread_create(&worker, NULL, work, (void *)(intptr_t)index) != 0) {
      fail(NPAS_EXIT_MEMORY, "cannot start thread %d of %d", (int)index + 1, (int)threads);
    }
    pthread_detach(worker);
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  npas_parallel(settle);
  CPU_ZERO(&all);
  for (int32_t index = 0; index < threads; ++index) CPU_OR(&all, &all, &pool.obtained[index]);
  /* Whoever spins on a core that another thread needs only delays it. */
  pool.spin_ns = CPU_COUNT(&all) >= threads ? SPIN_NS : 0;
}

static void json_cores(const cpu_set_t *set) {
  const char *separator = "";
  putchar('[');
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, set)) continue;
    printf("%s%d", separator, cpu);
    separator = ",";
  }
  putchar(']');
}

/* What was asked: null, one core or a list; what all threads together may use; and what each of them may. */
static void json_affinity(void) {
  cpu_set_t all;
  if (pool.threads == 0 && sched_getaffinity(0, sizeof *pool.obtained, pool.obtained) != 0) CPU_ZERO(pool.obtained);
  int32_t threads = pool.threads ? pool.threads : 1;
  CPU_ZERO(&all);
  for (int32_t index = 0; index < threads; ++index) CPU_OR(&all, &all, &pool.obtained[index]);
  fputs("{\"asked\":", stdout);
  if (pool.asked.count == 0) fputs("null", stdout);
  if (pool.asked.count == 1) printf("%d", pool.asked.cpus[0]);
  for (int32_t i = 0; pool.asked.count > 1 && i < pool.asked.count; ++i) printf(i ? ",%d" : "[%d", pool.asked.cpus[i]);
  fputs(pool.asked.count > 1 ? "],\"obtained\":" : ",\"obtained\":", stdout);
  json_cores(&all);
  fputs("},\"threads\":[", stdout);
  for (int32_t index = 0; index < threads; ++index) {
    if (index) putchar(',');
    json_cores(&pool.obtained[index]);
  }
  putchar(']');
}
#endif
