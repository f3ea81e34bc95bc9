/*
 * Kills, stops or fails radosgw at its Nth RADOS write: LD_PRELOAD=steps.so STEPS=file radosgw …
 *
 * The file says what to do: "kill 5 abc" (SIGKILL before the 5th write), "stop 3 abd" (SIGSTOP before the 3rd), "eio 6 abe"
 * (the 6th fails with EIO), "count 0 abf". A new text restarts the count. file.n contains the count.
 *
 * It wraps four functions of librados that radosgw calls (Ceph 16 and 18, no headers needed): IoCtx::operate and
 * IoCtx::aio_operate of a write, with and without flags. libstdc++'s std::string begins with pointer and length.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  const char *text;
  size_t length;
} *string;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char action[9], seen[99];
static long at, count;

/* Objects that radosgw's own threads write to, at any time. */
static const char *background[] = {"obj_delete_at_hint", "gc.", "lc.", "reshard.", "notify.", "data_log", "meta.log"};

static void tell(void) {
  char name[512];
  snprintf(name, sizeof name, "%s.n", getenv("STEPS"));
  FILE *file = fopen(name, "we");
  if (file) {
    fprintf(file, "%ld", count);
    fclose(file);
  }
}

static int step(string object) {
  for (size_t i = 0; i < sizeof background / sizeof *background; i++)
    if (!strncmp(object->text, background[i], strlen(background[i]))) return 0;
  pthread_mutex_lock(&lock);
  char text[99] = "";
  FILE *file = fopen(getenv("STEPS"), "re");
  if (file) {
    if (!fgets(text, sizeof text, file)) *text = 0;
    fclose(file);
  }
  if (strcmp(text, seen)) {
    strcpy(seen, text);
    count = 0;
    *action = 0;
    sscanf(text, "%8s %ld", action, &at);
  }
  int hit = ++count == at;
  tell();
  pthread_mutex_unlock(&lock);
  if (hit && !strcmp(action, "kill")) {
    kill(getpid(), SIGKILL);
    pause();
  }
  if (hit && !strcmp(action, "stop")) kill(getpid(), SIGSTOP);
  return hit && !strcmp(action, "eio") ? -EIO : 0;
}

#define WRITE(name, parameters, arguments)                                                                             \
  int name parameters {                                                                                                \
    static int(*real) parameters;                                                                                      \
    if (!real) real = dlsym(RTLD_NEXT, #name);                                                                         \
    int failure = step(object);                                                                                        \
    return failure ? failure : real arguments;                                                                         \
  }

WRITE(_ZN8librados7v14_2_05IoCtx7operateERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEPNS0_20ObjectWriteOperationE,
      (void *pool, string object, void *operation), (pool, object, operation))
WRITE(_ZN8librados7v14_2_05IoCtx7operateERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEPNS0_20ObjectWriteOperationEi,
      (void *pool, string object, void *operation, int flags), (pool, object, operation, flags))
WRITE(_ZN8librados7v14_2_05IoCtx11aio_operateERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEPNS0_13AioCompletionEPNS0_20ObjectWriteOperationE,
      (void *pool, string object, void *completion, void *operation), (pool, object, completion, operation))
WRITE(_ZN8librados7v14_2_05IoCtx11aio_operateERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEPNS0_13AioCompletionEPNS0_20ObjectWriteOperationEi,
      (void *pool, string object, void *completion, void *operation, int flags), (pool, object, completion, operation, flags))
