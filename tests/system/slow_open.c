/* Preloaded into one rank by straggler_test.py: opening a picture takes SLOW_OPEN_MICROSECONDS longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*Open)(const char *, int, ...);

static int SlowOpen(const char *name, const char *path, int flags, mode_t mode) {
  const size_t length = strlen(path);
  if (length > 4 && strcmp(path + length - 4, ".png") == 0) {
    const char *delay = getenv("SLOW_OPEN_MICROSECONDS");
    usleep(delay != NULL ? (useconds_t)atoi(delay) : 0);
  }
  return ((Open)dlsym(RTLD_NEXT, name))(path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return SlowOpen("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return SlowOpen("open64", path, flags, mode);
}
