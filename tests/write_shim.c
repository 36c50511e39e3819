/* Notes down, in order, all that a process and its children do to the files below one folder.
 *
 * Loaded with LD_PRELOAD (tests/crash_journal.py compiles and reads it). In the environment:
 *
 *   WRITE_SHIM_FOLDER   absolute, without links: what lies below it is watched
 *   WRITE_SHIM_JOURNAL  the journal, outside the folder; records are appended
 *
 * A record is a `struct record`, then the path, a second path (links and renames) and the bytes written. What is
 * watched is asked of the kernel at each call (/proc/self/fd), so duplicates, swaps and forks need no bookkeeping.
 * The call and its record are one under a lock: several processes' records stand in the order of their effects.
 *
 * The writer may call, by ctypes: `write_shim_mark` to put a line of its own between the records, `write_shim_fail`
 * to have the disk full from the n-th write on.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MARK = 1, OPENED, WRITTEN, CUT, LINKED, RENAMED, UNLINKED, MADE, REMOVED, SYNCED, FAILED };

struct record {
    uint32_t operation, pid;
    uint64_t inode, offset; /* of a write; the new size where a file is cut */
    uint32_t path, second, bytes, made; /* lengths; whether an open made the file */
};

static char folder[PATH_MAX];
static size_t folder_length;
static int journal = -1;
static pthread_mutex_t threads = PTHREAD_MUTEX_INITIALIZER;

/* How many writes still succeed before the disk is full (-1: no limit), and of the first that fails, how many bytes
 * still go out. */
static long writes_left = -1, last_bytes;

#define PAGE 4096

#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(int, open64, const char *, int, ...);
REAL(int, openat64, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t);
REAL(int, ftruncate64, int, off64_t);
REAL(int, truncate64, const char *, off64_t);
REAL(int, renameat2, int, const char *, int, const char *, unsigned);
REAL(int, renameat, int, const char *, int, const char *);
REAL(int, linkat, int, const char *, int, const char *, int);
REAL(int, unlinkat, int, const char *, int);
REAL(int, mkdirat, int, const char *, mode_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);

static void before_fork(void) { pthread_mutex_lock(&threads); }
static void after_fork(void) { pthread_mutex_unlock(&threads); }

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "write_shim: %s: %s\n", what, strerror(errno));
        abort();
    }
}

__attribute__((constructor)) static void start(void)
{
    static int started;
    if (started)
        return;
    started = 1;
#define LOOK_UP(name) must((*(void **)&real_##name = dlsym(RTLD_NEXT, #name)) != NULL, #name)
    LOOK_UP(open64);
    LOOK_UP(openat64);
    LOOK_UP(write);
    LOOK_UP(pwrite64);
    LOOK_UP(writev);
    LOOK_UP(pwritev64);
    LOOK_UP(ftruncate64);
    LOOK_UP(truncate64);
    LOOK_UP(renameat2);
    LOOK_UP(renameat);
    LOOK_UP(linkat);
    LOOK_UP(unlinkat);
    LOOK_UP(mkdirat);
    LOOK_UP(fsync);
    LOOK_UP(fdatasync);
    const char *watched = getenv("WRITE_SHIM_FOLDER"), *path = getenv("WRITE_SHIM_JOURNAL");
    if (watched == NULL || path == NULL)
        return;
    must((folder_length = strlen(watched)) < sizeof folder, "the folder's name is too long");
    strcpy(folder, watched);
    int low = real_open64(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    must(low >= 0, "the journal can't be opened");
    journal = fcntl(low, F_DUPFD_CLOEXEC, 900); /* out of the way of who counts descriptors */
    must(journal >= 0, "the journal's descriptor");
    close(low);
    pthread_atfork(before_fork, after_fork, after_fork);
}

static int below(const char *path)
{
    return folder_length && strncmp(path, folder, folder_length) == 0
        && (path[folder_length] == '/' || path[folder_length] == '\0');
}

/* The path of a descriptor; whether it is watched. */
static int path_of(int descriptor, char *path)
{
    char name[40];
    if (!folder_length)
        return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(name, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    return below(path);
}

/* The absolute form of a path that a call was given; whether it is watched. */
static int absolute(int at, const char *given, char *path)
{
    char start[PATH_MAX];
    if (!folder_length || given == NULL)
        return 0;
    if (given[0] == '/')
        return snprintf(path, PATH_MAX, "%s", given) < PATH_MAX && below(path);
    if (at == AT_FDCWD) {
        if (getcwd(start, sizeof start) == NULL)
            return 0;
    } else {
        path_of(at, start);
    }
    while (given[0] == '.' && given[1] == '/')
        given += 2;
    return snprintf(path, PATH_MAX, "%s/%s", start, given) < PATH_MAX && below(path);
}

static uint64_t inode_of(int descriptor)
{
    struct stat64 found;
    return fstat64(descriptor, &found) == 0 ? found.st_ino : 0;
}

static uint64_t inode_at(const char *path)
{
    struct stat64 found;
    return lstat64(path, &found) == 0 ? found.st_ino : 0;
}

static void lock(void)
{
    struct flock64 whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pthread_mutex_lock(&threads);
    while (fcntl(journal, F_SETLKW64, &whole) < 0)
        must(errno == EINTR, "the journal can't be locked");
}

static void unlock(void)
{
    struct flock64 whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    int saved = errno;
    must(fcntl(journal, F_SETLK64, &whole) == 0, "the journal can't be unlocked");
    pthread_mutex_unlock(&threads);
    errno = saved;
}

static void note(uint32_t operation, uint64_t inode, uint64_t offset, const char *path, const char *second,
                 const void *bytes, size_t count, uint32_t made)
{
    int saved = errno;
    struct record head = {operation, (uint32_t)getpid(), inode, offset, (uint32_t)strlen(path),
                          (uint32_t)strlen(second), (uint32_t)count, made};
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)path, head.path},
                            {(void *)second, head.second},
                            {(void *)bytes, count}};
    ssize_t all = (ssize_t)(sizeof head + head.path + head.second + count);
    must(real_writev(journal, parts, 4) == all, "a record can't be written");
    errno = saved;
}

void write_shim_mark(const char *text)
{
    if (journal < 0)
        return;
    lock();
    note(MARK, 0, 0, "", "", text, strlen(text), 0);
    unlock();
}

/* From now on `writes` more succeed; the next writes its first `bytes` and no more, and all after it fail with
 * ENOSPC, as does what makes a file. -1: the disk has room again. */
void write_shim_fail(long writes, long bytes)
{
    writes_left = writes;
    last_bytes = bytes;
}

/* How many bytes of `count` go out at a place of a file; -1 with errno set if none.
 *
 * A write that grows a file can end anywhere, where a limit of its size is reached. Of one that replaces what the file
 * holds, whole pages go out or none: only a file system that copies what is replaced needs room for it at all. */
static ssize_t room(int descriptor, size_t count, off64_t first)
{
    if (writes_left < 0)
        return (ssize_t)count;
    if (writes_left > 0) {
        writes_left--;
        return (ssize_t)count;
    }
    size_t some = last_bytes > 0 && (size_t)last_bytes < count ? (size_t)last_bytes : 0;
    last_bytes = 0;
    struct stat64 found;
    if (some > 0 && fstat64(descriptor, &found) == 0 && first + (off64_t)some < found.st_size) {
        off64_t end = (first + (off64_t)some) / PAGE * PAGE;
        some = end > first ? (size_t)(end - first) : 0;
    }
    if (some > 0)
        return (ssize_t)some;
    errno = ENOSPC;
    return -1;
}

static ssize_t watched_write(int descriptor, const char *path, const void *bytes, size_t count, off64_t offset)
{
    lock();
    ssize_t done = room(descriptor, count, offset < 0 ? lseek64(descriptor, 0, SEEK_CUR) : offset);
    if (done >= 0)
        done = offset < 0 ? real_write(descriptor, bytes, (size_t)done)
                          : real_pwrite64(descriptor, bytes, (size_t)done, offset);
    if (done > 0) {
        off64_t first = offset < 0 ? lseek64(descriptor, 0, SEEK_CUR) - done : offset;
        note(WRITTEN, inode_of(descriptor), (uint64_t)first, path, "", bytes, (size_t)done, 0);
    } else if (done < 0) {
        note(FAILED, inode_of(descriptor), 0, path, "", "", 0, 0);
    }
    unlock();
    return done;
}

ssize_t write(int descriptor, const void *bytes, size_t count)
{
    char path[PATH_MAX];
    start();
    if (descriptor == journal || !path_of(descriptor, path))
        return real_write(descriptor, bytes, count);
    return watched_write(descriptor, path, bytes, count, -1);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset)
{
    char path[PATH_MAX];
    start();
    if (!path_of(descriptor, path))
        return real_pwrite64(descriptor, bytes, count, offset);
    return watched_write(descriptor, path, bytes, count, offset);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(descriptor, bytes, count, offset);
}

/* A vector's parts go out one by one: a file's writer has to bear with less than it asked for. */
ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    char path[PATH_MAX];
    start();
    if (descriptor == journal || !path_of(descriptor, path))
        return real_writev(descriptor, parts, count);
    for (int at = 0; at < count; at++)
        if (parts[at].iov_len)
            return watched_write(descriptor, path, parts[at].iov_base, parts[at].iov_len, -1);
    return 0;
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset)
{
    char path[PATH_MAX];
    start();
    if (!path_of(descriptor, path))
        return real_pwritev64(descriptor, parts, count, offset);
    for (int at = 0; at < count; at++)
        if (parts[at].iov_len)
            return watched_write(descriptor, path, parts[at].iov_base, parts[at].iov_len, offset);
    return 0;
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset)
{
    return pwritev64(descriptor, parts, count, offset);
}

static int opened(int at, const char *given, int flags, mode_t mode)
{
    char path[PATH_MAX];
    start();
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !absolute(at, given, path))
        return real_openat64(at, given, flags, mode);
    lock();
    struct stat64 before;
    int made = stat64(path, &before) < 0, descriptor = -1;
    if (made && room(-1, 1, 0) < 0)
        note(FAILED, 0, 0, path, "", "", 0, 0);
    else
        descriptor = real_openat64(at, given, flags, mode);
    if (descriptor >= 0 && (made || flags & O_TRUNC)) {
        path_of(descriptor, path);
        if (made)
            note(OPENED, inode_of(descriptor), 0, path, "", "", 0, 1);
        else
            note(CUT, inode_of(descriptor), 0, path, "", "", 0, 0);
    }
    unlock();
    return descriptor;
}

#define MODE(flags, mode)                                                     \
    mode_t mode = 0;                                                          \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                    \
        va_list rest;                                                         \
        va_start(rest, flags);                                                \
        mode = va_arg(rest, mode_t);                                          \
        va_end(rest);                                                         \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(at, path, flags | O_LARGEFILE, mode);
}

int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int ftruncate64(int descriptor, off64_t size)
{
    char path[PATH_MAX];
    start();
    if (!path_of(descriptor, path))
        return real_ftruncate64(descriptor, size);
    lock();
    int done = real_ftruncate64(descriptor, size);
    if (done == 0)
        note(CUT, inode_of(descriptor), (uint64_t)size, path, "", "", 0, 0);
    unlock();
    return done;
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

int truncate64(const char *given, off64_t size)
{
    char path[PATH_MAX];
    start();
    if (!absolute(AT_FDCWD, given, path))
        return real_truncate64(given, size);
    lock();
    int done = real_truncate64(given, size);
    if (done == 0)
        note(CUT, inode_at(path), (uint64_t)size, path, "", "", 0, 0);
    unlock();
    return done;
}

int truncate(const char *path, off_t size) { return truncate64(path, size); }

static int renamed(int from, const char *old, int to, const char *new, unsigned flags)
{
    char path[PATH_MAX], second[PATH_MAX];
    start();
    int watched = absolute(from, old, path) | absolute(to, new, second);
    if (!watched)
        return flags ? real_renameat2(from, old, to, new, flags) : real_renameat(from, old, to, new);
    lock();
    int done = flags ? real_renameat2(from, old, to, new, flags) : real_renameat(from, old, to, new);
    if (done == 0)
        note(RENAMED, inode_at(second), 0, path, second, "", 0, 0);
    unlock();
    return done;
}

int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }

int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new, 0); }

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    return renamed(from, old, to, new, flags);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    char path[PATH_MAX], second[PATH_MAX];
    start();
    int watched = absolute(from, old, path) | absolute(to, new, second);
    if (!watched)
        return real_linkat(from, old, to, new, flags);
    lock();
    int done = real_linkat(from, old, to, new, flags);
    if (done == 0)
        note(LINKED, inode_at(second), 0, path, second, "", 0, 0);
    unlock();
    return done;
}

int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int at, const char *given, int flags)
{
    char path[PATH_MAX];
    start();
    if (!absolute(at, given, path))
        return real_unlinkat(at, given, flags);
    lock();
    int done = real_unlinkat(at, given, flags);
    if (done == 0)
        note(flags & AT_REMOVEDIR ? REMOVED : UNLINKED, 0, 0, path, "", "", 0, 0);
    unlock();
    return done;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *given, mode_t mode)
{
    char path[PATH_MAX];
    start();
    if (!absolute(at, given, path))
        return real_mkdirat(at, given, mode);
    lock();
    int done = real_mkdirat(at, given, mode);
    if (done == 0)
        note(MADE, 0, 0, path, "", "", 0, 0);
    unlock();
    return done;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int synced(int descriptor, int (*sync)(int))
{
    char path[PATH_MAX];
    if (!path_of(descriptor, path))
        return sync(descriptor);
    lock();
    int done = sync(descriptor);
    if (done == 0)
        note(SYNCED, inode_of(descriptor), 0, path, "", "", 0, 0);
    unlock();
    return done;
}

int fsync(int descriptor)
{
    start();
    return synced(descriptor, real_fsync);
}

int fdatasync(int descriptor)
{
    start();
    return synced(descriptor, real_fdatasync);
}
