/* A preloaded library that stands between a real process and its disk and clock.
 *
 * It records every change that the process makes to the files of one directory, in order, and it
 * can let a sync fail or be slow and the wall clock be wrong. It never changes what is written.
 *
 * KERB_DISK_DIR  the directory (absolute, no links in it); nothing else is looked at
 * KERB_DISK_LOG  where the changes go: struct head, name, data (little endian, this machine's)
 * KERB_DISK_DIE  SIGKILL to itself right behind so many changes
 * KERB_DISK_CTL  a file of struct control, shared: the tester turns the faults on and off in it
 *
 * -shm files are shared memory, rebuilt after a crash and never synced: they are left out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define FDS 4096
#define NAME 200

struct head {
    uint8_t kind;
    uint8_t name_bytes;
    uint16_t pad;
    uint32_t data_bytes;
    uint64_t offset;
};

struct control {
    int64_t wall_offset_ms;
    int32_t sync_delay_ms;
    int32_t sync_errno;
    int32_t write_errno;
    int32_t syncs; /* counted here, so that a tester sees that the fault was met */
};

static char directory[4096];
static size_t directory_bytes;
static int log_fd = -1;
static long left = -1; /* changes until death; below zero: it may live */
static volatile struct control *control;
static char names[FDS][NAME]; /* "" : not of ours; "." : the directory itself */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(result, name, ...) \
    static result (*real_##name)(__VA_ARGS__); \
    if (!real_##name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("KERB_DISK_DIR");
    if (text && strlen(text) < sizeof directory) {
        strcpy(directory, text);
        directory_bytes = strlen(text);
    }
    text = getenv("KERB_DISK_LOG");
    if (text)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, text,
                              O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    text = getenv("KERB_DISK_DIE");
    if (text)
        left = atol(text);
    text = getenv("KERB_DISK_CTL");
    if (text) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, text, O_RDWR | O_CLOEXEC, 0);
        if (fd >= 0) {
            void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (at != MAP_FAILED)
                control = at;
            syscall(SYS_close, fd);
        }
    }
}

/* The name below the directory, "." for itself, NULL for all else. */
static const char *below(const char *path)
{
    const char *rest;
    if (!directory_bytes || !path || strncmp(path, directory, directory_bytes))
        return NULL;
    rest = path + directory_bytes;
    if (!*rest)
        return ".";
    if (*rest != '/')
        return NULL;
    rest++;
    if (!*rest)
        return ".";
    size_t bytes = strlen(rest);
    if (bytes >= NAME || strchr(rest, '/'))
        return NULL;
    if (bytes > 4 && !strcmp(rest + bytes - 4, "-shm"))
        return NULL;
    return rest;
}

static const char *name_of(int fd)
{
    return fd >= 0 && fd < FDS && names[fd][0] ? names[fd] : NULL;
}

static void note(char kind, const char *name, uint64_t offset, const void *data, size_t bytes)
{
    struct head head = {(uint8_t)kind, (uint8_t)strlen(name), 0, (uint32_t)bytes, offset};
    size_t all = sizeof head + head.name_bytes + bytes;
    char *row;
    if (log_fd < 0 || !(row = malloc(all)))
        return;
    memcpy(row, &head, sizeof head);
    memcpy(row + sizeof head, name, head.name_bytes);
    if (bytes)
        memcpy(row + sizeof head + head.name_bytes, data, bytes);
    for (size_t at = 0; at < all;) {
        long wrote = syscall(SYS_write, log_fd, row + at, all - at);
        if (wrote <= 0)
            abort(); /* a record with a hole would prove nothing */
        at += (size_t)wrote;
    }
    free(row);
    if (left > 0 && --left == 0)
        kill(getpid(), SIGKILL);
}

/* --- names --- */

static int opened(const char *path, int flags, mode_t mode)
{
    const char *name = below(path);
    struct stat there;
    int made = name && (flags & O_CREAT) && stat(path, &there) != 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd < 0 || fd >= FDS)
        return fd;
    names[fd][0] = 0;
    if (!name)
        return fd;
    strcpy(names[fd], name);
    if (made)
        note('c', name, 0, NULL, 0);
    else if (flags & O_TRUNC)
        note('t', name, 0, NULL, 0);
    return fd;
}

#define OPEN(symbol) \
    int symbol(const char *path, int flags, ...) \
    { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        pthread_mutex_lock(&lock); \
        int fd = opened(path, flags, mode); \
        int kept = errno; \
        pthread_mutex_unlock(&lock); \
        errno = kept; \
        return fd; \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (fd >= 0 && fd < FDS)
        names[fd][0] = 0;
    return (int)syscall(SYS_close, fd);
}

int unlink(const char *path)
{
    REAL(int, unlink, const char *);
    const char *name = below(path);
    pthread_mutex_lock(&lock);
    int result = real_unlink(path), kept = errno;
    if (result == 0 && name)
        note('u', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return result;
}

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    const char *old = below(from), *new = below(to);
    pthread_mutex_lock(&lock);
    int result = real_rename(from, to), kept = errno;
    if (result == 0 && old && new)
        note('r', old, 0, new, strlen(new));
    pthread_mutex_unlock(&lock);
    errno = kept;
    return result;
}

/* --- contents --- */

static int refused(const char *name)
{
    if (name && control && control->write_errno) {
        errno = control->write_errno;
        return 1;
    }
    return 0;
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    const char *name = name_of(fd);
    if (refused(name))
        return -1;
    if (!name)
        return syscall(SYS_write, fd, data, bytes);
    pthread_mutex_lock(&lock);
    off_t at = lseek(fd, 0, SEEK_CUR);
    struct stat now;
    if (fcntl(fd, F_GETFL) & O_APPEND && fstat(fd, &now) == 0)
        at = now.st_size;
    ssize_t wrote = syscall(SYS_write, fd, data, bytes);
    int kept = errno;
    if (wrote > 0)
        note('w', name, (uint64_t)at, data, (size_t)wrote);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return wrote;
}

#define PWRITE(symbol, offset_type) \
    ssize_t symbol(int fd, const void *data, size_t bytes, offset_type at) \
    { \
        const char *name = name_of(fd); \
        if (refused(name)) \
            return -1; \
        if (!name) \
            return syscall(SYS_pwrite64, fd, data, bytes, at); \
        pthread_mutex_lock(&lock); \
        ssize_t wrote = syscall(SYS_pwrite64, fd, data, bytes, at); \
        int kept = errno; \
        if (wrote > 0) \
            note('w', name, (uint64_t)at, data, (size_t)wrote); \
        pthread_mutex_unlock(&lock); \
        errno = kept; \
        return wrote; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(symbol, offset_type) \
    int symbol(int fd, offset_type bytes) \
    { \
        const char *name = name_of(fd); \
        pthread_mutex_lock(&lock); \
        int result = (int)syscall(SYS_ftruncate, fd, bytes), kept = errno; \
        if (result == 0 && name) \
            note('t', name, (uint64_t)bytes, NULL, 0); \
        pthread_mutex_unlock(&lock); \
        errno = kept; \
        return result; \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define ALLOCATE(symbol, offset_type) \
    int symbol(int fd, offset_type at, offset_type bytes) \
    { \
        const char *name = name_of(fd); \
        if (syscall(SYS_fallocate, fd, 0, at, bytes)) \
            return errno; \
        if (name) \
            note('a', name, (uint64_t)(at + bytes), NULL, 0); \
        return 0; \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

/* --- syncs --- */

static int synced(int fd, long number)
{
    const char *name = name_of(fd);
    if (name && control) {
        struct timespec pause = {control->sync_delay_ms / 1000,
                                 control->sync_delay_ms % 1000 * 1000000L};
        control->syncs++;
        if (control->sync_delay_ms)
            nanosleep(&pause, NULL);
        if (control->sync_errno) {
            errno = control->sync_errno;
            return -1;
        }
    }
    if (!name)
        return (int)syscall(number, fd);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(number, fd), kept = errno;
    if (result == 0)
        note(*name == '.' && !name[1] ? 'd' : 's', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* --- the wall clock; every other clock stays right --- */

static int is_wall(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && control && is_wall(clock)) {
        int64_t ms = control->wall_offset_ms, ns = now->tv_nsec + ms % 1000 * 1000000;
        now->tv_sec += ms / 1000;
        if (ns < 0) {
            now->tv_sec--;
            ns += 1000000000;
        } else if (ns >= 1000000000) {
            now->tv_sec++;
            ns -= 1000000000;
        }
        now->tv_nsec = ns;
    }
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec fine;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &fine))
        return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
