/* Stands between a program and its C library (LD_PRELOAD) and counts the calls that change files
 * below one directory. At a chosen call it kills the program, stops it, or refuses the call.
 *
 * Environment: CALLS_CONTROL names a file of five 64-bit numbers, shared with whoever steers:
 *   0  calls so far; the steering side may set it back
 *   1  the first call to act at, 0 for none
 *   2  the last call to act at
 *   3  what to do: see `enum action`
 *   4  the error number for a refusal
 * CALLS_BELOW is the directory, as the program itself names it. CALLS_LOG, if set, names a file
 * that gets a line for each call: its number, its name and the path. CALLS_ONLY, if set, is part
 * of the names of the only calls that count.
 *
 * Only calls through the library's own names are seen; the test that uses this compares the log
 * with what it expects, so that a program that goes another way is noticed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum action { KILL_BEFORE = 1, KILL_AFTER = 2, KILL_AMID = 3, STOP_AROUND = 4, REFUSE = 5 };

struct control {
    _Atomic uint64_t count, first, last, action, error;
};

/* What is to be done about one call. */
struct verdict {
    enum action action;
    int error;
};

static const size_t PAGE = 4096;
static struct control *control;
static const char *below, *only;
static int log_to = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CALLS_CONTROL");
    below = getenv("CALLS_BELOW");
    only = getenv("CALLS_ONLY");
    if (!path || !below)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (getenv("CALLS_LOG"))
        log_to = (int)syscall(SYS_openat, AT_FDCWD, getenv("CALLS_LOG"),
                              O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (memory != MAP_FAILED)
        control = memory;
}

static void send_myself(int signal)
{
    /* To this very thread, so that it does not get ahead before the others are stopped. A kill does
     * not return; a stop returns when the program is let go on. */
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
    while (signal == SIGKILL)
        pause();
}

static struct verdict judge(const char *name, const char *path)
{
    struct verdict verdict = {0, 0};
    if (!control || strncmp(path, below, strlen(below)) != 0 || (only && !strstr(name, only)))
        return verdict;
    uint64_t number = atomic_fetch_add(&control->count, 1) + 1;
    if (log_to >= 0) {
        char line[4400];
        int length = snprintf(line, sizeof line, "%llu %s %s\n", (unsigned long long)number, name, path);
        if (length > 0)
            syscall(SYS_write, log_to, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
    }
    uint64_t first = control->first;
    if (first == 0 || number < first || number > control->last)
        return verdict;
    verdict.action = (enum action)control->action;
    verdict.error = (int)control->error;
    if (verdict.action == KILL_BEFORE)
        send_myself(SIGKILL);
    if (verdict.action == STOP_AROUND)
        send_myself(SIGSTOP);
    return verdict;
}

static void done(struct verdict verdict)
{
    int kept = errno;
    if (verdict.action == KILL_AFTER || verdict.action == KILL_AMID)
        send_myself(SIGKILL);
    if (verdict.action == STOP_AROUND)
        send_myself(SIGSTOP);
    errno = kept;
}

/* The path of an open file. */
static const char *path_of(int fd, char buffer[4200])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, 4199);
    buffer[length < 0 ? 0 : length] = 0;
    return buffer;
}

/* The path of `name` as seen from a directory. */
static const char *path_at(int dir, const char *name, char buffer[4200])
{
    if (dir == AT_FDCWD || name[0] == '/')
        return name;
    path_of(dir, buffer);
    size_t length = strlen(buffer);
    snprintf(buffer + length, 4200 - length, "/%s", name);
    return buffer;
}

/* A call with nothing in it but to be made or refused. */
#define WRAP(name, path, parameters, ...)                        \
    int name parameters                                          \
    {                                                            \
        static int (*real) parameters;                           \
        char buffer[4200];                                       \
        (void)buffer;                                            \
        if (!real)                                               \
            real = (int(*) parameters)dlsym(RTLD_NEXT, #name);   \
        struct verdict verdict = judge(#name, path);             \
        if (verdict.action == REFUSE) {                          \
            errno = verdict.error;                               \
            return -1;                                           \
        }                                                        \
        int result = real(__VA_ARGS__);                          \
        done(verdict);                                           \
        return result;                                           \
    }

WRAP(fsync, path_of(fd, buffer), (int fd), fd)
WRAP(fdatasync, path_of(fd, buffer), (int fd), fd)
WRAP(ftruncate, path_of(fd, buffer), (int fd, off_t size), fd, size)
WRAP(ftruncate64, path_of(fd, buffer), (int fd, off64_t size), fd, size)
WRAP(fallocate, path_of(fd, buffer), (int fd, int mode, off_t at, off_t size), fd, mode, at, size)
WRAP(fallocate64, path_of(fd, buffer), (int fd, int mode, off64_t at, off64_t size), fd, mode, at, size)
WRAP(sync_file_range, path_of(fd, buffer), (int fd, off64_t at, off64_t size, unsigned flags), fd, at, size, flags)
WRAP(rename, from, (const char *from, const char *to), from, to)
WRAP(unlink, path, (const char *path), path)
WRAP(unlinkat, path_at(dir, name, buffer), (int dir, const char *name, int flags), dir, name, flags)
WRAP(rmdir, path, (const char *path), path)
WRAP(mkdir, path, (const char *path, mode_t mode), path, mode)

/* Opening counts where it makes or empties a file. */
#define WRAP_OPEN(name)                                                        \
    int name(const char *path, int flags, ...)                                 \
    {                                                                          \
        static int (*real)(const char *, int, ...);                            \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0;            \
        va_end(rest);                                                          \
        if (!real)                                                             \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);   \
        struct verdict verdict = {0, 0};                                       \
        if (flags & (O_CREAT | O_TRUNC))                                       \
            verdict = judge(#name, path);                                      \
        if (verdict.action == REFUSE) {                                        \
            errno = verdict.error;                                             \
            return -1;                                                         \
        }                                                                      \
        int result = real(path, flags, mode);                                  \
        done(verdict);                                                         \
        return result;                                                         \
    }

WRAP_OPEN(open)
WRAP_OPEN(open64)

/* Of a write that goes over a page's end, a kill may leave what lies before that end. */
static size_t part(size_t size, uint64_t at, struct verdict verdict)
{
    if (verdict.action != KILL_AMID)
        return size;
    uint64_t middle = (at + size / 2 + PAGE - 1) / PAGE * PAGE;
    return middle > at && middle < at + size ? (size_t)(middle - at) : 0;
}

#define WRAP_WRITE(name, place, parameters, ...)                  \
    ssize_t name parameters                                       \
    {                                                             \
        static ssize_t(*real) parameters;                         \
        char buffer[4200];                                        \
        if (!real)                                                \
            real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name); \
        struct verdict verdict = judge(#name, path_of(fd, buffer)); \
        if (verdict.action == REFUSE) {                           \
            errno = verdict.error;                                \
            return -1;                                            \
        }                                                         \
        size = part(size, place, verdict);                        \
        ssize_t result = size ? real(__VA_ARGS__) : 0;            \
        done(verdict);                                            \
        return result;                                            \
    }

WRAP_WRITE(write, (uint64_t)lseek(fd, 0, SEEK_CUR), (int fd, const void *bytes, size_t size), fd, bytes, size)
WRAP_WRITE(pwrite, (uint64_t)at, (int fd, const void *bytes, size_t size, off_t at), fd, bytes, size, at)
WRAP_WRITE(pwrite64, (uint64_t)at, (int fd, const void *bytes, size_t size, off64_t at), fd, bytes, size, at)
