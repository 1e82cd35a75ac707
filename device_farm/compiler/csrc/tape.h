/* Reads what tape.py writes: 64-bit little-endian words, as all our targets are little-endian. A cursor that meets the
 * end or a number out of range stays at the end and says so once, at the end of reading. */
#ifndef NPAS_TAPE_H
#define NPAS_TAPE_H
#include <stdint.h>
#include <string.h>

typedef struct {
  const int64_t *at, *end;
  int damaged;
} tape_t;

static inline int64_t tape_word(tape_t *tape) {
  if (tape->at < tape->end) return *tape->at++;
  tape->damaged = 1;
  return 0;
}

static inline int64_t tape_range(tape_t *tape, int64_t low, int64_t high) {
  int64_t word = tape_word(tape);
  if (word >= low && word <= high) return word;
  tape->damaged = 1;
  tape->at = tape->end;
  return low;
}

static inline int32_t tape_int(tape_t *tape) { return (int32_t)tape_range(tape, INT32_MIN, INT32_MAX); }

/* How many things follow, each of at least one word. */
static inline int32_t tape_count(tape_t *tape) { return (int32_t)tape_range(tape, 0, tape->end - tape->at); }

static inline float tape_float(tape_t *tape) {
  uint32_t bits = (uint32_t)tape_word(tape);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* A text within the tape, which must outlive it. */
static inline const char *tape_text(tape_t *tape) {
  int32_t words = tape_count(tape); /* its last byte is zero */
  const char *text = (const char *)tape->at;
  tape->at += words;
  if (words > 0 && text[8 * (int64_t)words - 1] == '\0') return text;
  tape->damaged = 1;
  return "";
}

/* Integers: a count, then two in each word. */
static inline const int32_t *tape_integers(tape_t *tape, int32_t *count) {
  int32_t words;
  *count = (int32_t)tape_range(tape, 0, 2 * (tape->end - tape->at));
  words = (*count + 1) / 2;
  const int32_t *integers = (const int32_t *)tape->at;
  if (words > tape->end - tape->at) {
    tape->damaged = 1;
    words = 0;
    *count = 0;
  }
  tape->at += words;
  return integers;
}
#endif
