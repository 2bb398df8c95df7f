#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity, the writer-first lock */
#endif
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- Memory. ---- */

static void *allocate(void *context, size_t bytes, size_t alignment) {
    (void)context;
    void *memory = NULL;
    if (alignment < sizeof(void *)) alignment = sizeof(void *);
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

static void release(void *context, void *memory, size_t bytes) {
    (void)context;
    (void)bytes;
    free(memory);
}

edgec_allocator platform_allocator(void) {
    return (edgec_allocator){allocate, release, NULL};
}

/* ---- Machine: time and processors; features are in machine.c. ---- */

uint64_t platform_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint32_t platform_cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return (uint32_t)CPU_COUNT(&set);
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (uint32_t)count : 1;
}

void platform_yield(void) { sched_yield(); }

uint64_t platform_process(void) { return (uint64_t)getpid(); }

/* ---- Files. ---- */

edgec_status platform_file_map(const char *path, platform_file *file) {
    struct stat info;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return EDGEC_CANNOT_READ;
    if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(descriptor);
        return EDGEC_CANNOT_READ;
    }
    if (info.st_size == 0) { /* cannot be mapped; its reader will refuse it */
        close(descriptor);
        *file = (platform_file){NULL, 0, -1};
        return EDGEC_OK;
    }
    size_t bytes = (size_t)info.st_size;
    void *data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) {
        edgec_status status = errno == ENOMEM ? EDGEC_OUT_OF_MEMORY : EDGEC_CANNOT_READ;
        close(descriptor);
        return status;
    }
    *file = (platform_file){data, bytes, descriptor};
    return EDGEC_OK;
}

void platform_file_unmap(platform_file *file) {
    if (file->descriptor < 0) return;
    munmap((void *)(uintptr_t)file->data, file->bytes);
    close(file->descriptor);
    file->descriptor = -1;
}

void platform_file_forget(const platform_file *file) {
    if (file->descriptor >= 0) (void)madvise((void *)(uintptr_t)file->data, file->bytes, MADV_DONTNEED);
}

/* Whether `path` still names the file that is open as `descriptor`. */
static int names_file(const char *path, int descriptor) {
    struct stat named, opened;
    return lstat(path, &named) == 0 && fstat(descriptor, &opened) == 0 && named.st_dev == opened.st_dev &&
           named.st_ino == opened.st_ino;
}

void platform_writer_abandon(platform_writer *writer) {
    if (writer->descriptor < 0) return;
    unlink(writer->temporary); /* while it is locked */
    close(writer->descriptor);
    writer->descriptor = -1;
}

/* One temporary name for a path, so that what a killed process leaves is used again and nothing piles up. Two writers
 * of one path exclude each other by a lock on that file, which the kernel releases whatever becomes of its holder. A
 * writer that had to wait may hold a file that was renamed away meanwhile: it must look again. Where the file system has
 * no locks, it is written without. */
edgec_status platform_writer_open(platform_writer *writer, const char *path) {
    int length = snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof writer->temporary) return EDGEC_CANNOT_WRITE;
    writer->path = path;
    for (;;) {
        writer->descriptor = open(writer->temporary, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (writer->descriptor < 0) return EDGEC_CANNOT_WRITE;
        while (flock(writer->descriptor, LOCK_EX) != 0 && errno == EINTR) continue;
        if (names_file(writer->temporary, writer->descriptor)) break;
        close(writer->descriptor);
    }
    if (ftruncate(writer->descriptor, 0) == 0) return EDGEC_OK;
    platform_writer_abandon(writer);
    return EDGEC_CANNOT_WRITE;
}

edgec_status platform_writer_write(platform_writer *writer, const void *data, size_t bytes) {
    const uint8_t *p = data;
    while (bytes > 0) {
        ssize_t written = write(writer->descriptor, p, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return EDGEC_CANNOT_WRITE;
        p += written;
        bytes -= (size_t)written;
    }
    return EDGEC_OK;
}

/* Makes the rename itself last. A file system that cannot sync a directory has done what it can. */
static void sync_directory(platform_writer *writer) {
    char *directory = writer->temporary; /* no longer needed */
    char *slash = strrchr(directory, '/');
    if (slash == NULL) {
        directory[0] = '.';
        directory[1] = '\0';
    } else {
        slash[slash == directory ? 1 : 0] = '\0';
    }
    int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    fsync(descriptor);
    close(descriptor);
}

edgec_status platform_writer_commit(platform_writer *writer) {
    if (fsync(writer->descriptor) != 0 || rename(writer->temporary, writer->path) != 0) {
        platform_writer_abandon(writer);
        return EDGEC_CANNOT_WRITE;
    }
    close(writer->descriptor); /* synced: there is nothing left that could fail */
    writer->descriptor = -1;
    sync_directory(writer);
    return EDGEC_OK;
}

/* Makes a folder and those that it lies in; whoever cannot, cannot write there either. */
static void make_folder(char *path) {
    for (char *p = path + 1; *p != '\0'; p++) {
        if (*p != '/') continue;
        *p = '\0';
        (void)mkdir(path, 0777);
        *p = '/';
    }
    (void)mkdir(path, 0700);
}

edgec_status platform_cache_path(char path[PLATFORM_MAX_PATH], const char *folder, const char *name) {
    static const char *const variables[] = {"EDGEC_CACHE", "XDG_CACHE_HOME", "HOME"};
    static const char *const below[] = {"", "/edgec", "/.cache/edgec"};
    const char *own = "";
    for (int i = 0; folder == NULL && i < 3; i++) {
        folder = getenv(variables[i]);
        own = below[i];
        if (folder != NULL && *folder == '\0') folder = NULL;
    }
    if (folder == NULL || *folder == '\0') return EDGEC_CANNOT_WRITE;
    int length = snprintf(path, PLATFORM_MAX_PATH, "%s%s/programs", folder, own);
    if (length < 0 || length >= PLATFORM_MAX_PATH) return EDGEC_CANNOT_WRITE;
    make_folder(path);
    int more = snprintf(path + length, (size_t)(PLATFORM_MAX_PATH - length), "/%s", name);
    return more >= 0 && more < PLATFORM_MAX_PATH - length ? EDGEC_OK : EDGEC_CANNOT_WRITE;
}

/* ---- Code. ---- */

static edgec_status copy_code(const uint8_t *source, size_t bytes, platform_code *code) {
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return EDGEC_OUT_OF_MEMORY;
    memcpy(base, source, bytes);
    __builtin___clear_cache((char *)base, (char *)base + bytes);
    if (mprotect(base, bytes, PROT_READ | PROT_EXEC) != 0) {
        munmap(base, bytes);
        return EDGEC_CANNOT_MAP;
    }
    *code = (platform_code){base, bytes};
    return EDGEC_OK;
}

edgec_status platform_code_map(const platform_file *file, size_t offset, size_t bytes, platform_code *code) {
    long page = sysconf(_SC_PAGESIZE);
    if (file->descriptor >= 0 && page > 0 && offset % (size_t)page == 0) {
        void *base = mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_PRIVATE, file->descriptor, (off_t)offset);
        if (base != MAP_FAILED) {
            *code = (platform_code){base, bytes};
            return EDGEC_OK;
        }
    }
    return copy_code(file->data + offset, bytes, code);
}

void platform_code_unmap(platform_code *code) {
    if (code->bytes > 0) munmap((void *)(uintptr_t)code->base, code->bytes);
    code->bytes = 0;
}

/* ---- Threads. ---- */

edgec_status platform_thread_start(platform_thread *thread, void *(*body)(void *), void *argument) {
    return pthread_create(&thread->handle, NULL, body, argument) == 0 ? EDGEC_OK : EDGEC_NO_THREADS;
}

void platform_thread_join(platform_thread *thread) { pthread_join(thread->handle, NULL); }

edgec_status platform_bell_init(platform_bell *bell) {
    if (pthread_mutex_init(&bell->mutex, NULL) != 0) return EDGEC_NO_THREADS;
    if (pthread_cond_init(&bell->condition, NULL) != 0) {
        pthread_mutex_destroy(&bell->mutex);
        return EDGEC_NO_THREADS;
    }
    return EDGEC_OK;
}

void platform_bell_destroy(platform_bell *bell) {
    pthread_cond_destroy(&bell->condition);
    pthread_mutex_destroy(&bell->mutex);
}

void platform_bell_lock(platform_bell *bell) { pthread_mutex_lock(&bell->mutex); }
void platform_bell_unlock(platform_bell *bell) { pthread_mutex_unlock(&bell->mutex); }
void platform_bell_wait(platform_bell *bell) { pthread_cond_wait(&bell->condition, &bell->mutex); }

void platform_bell_ring(platform_bell *bell) {
    pthread_mutex_lock(&bell->mutex);
    pthread_cond_broadcast(&bell->condition);
    pthread_mutex_unlock(&bell->mutex);
}

edgec_status platform_lock_init(platform_lock *lock) {
    pthread_rwlockattr_t attributes;
    if (pthread_rwlockattr_init(&attributes) != 0) return EDGEC_NO_THREADS;
#ifdef __GLIBC__ /* its default lets readers starve a writer */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    int failed = pthread_rwlock_init(&lock->handle, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    return failed ? EDGEC_NO_THREADS : EDGEC_OK;
}

void platform_lock_destroy(platform_lock *lock) { pthread_rwlock_destroy(&lock->handle); }
void platform_lock_read(platform_lock *lock) { pthread_rwlock_rdlock(&lock->handle); }
void platform_lock_write(platform_lock *lock) { pthread_rwlock_wrlock(&lock->handle); }
void platform_lock_release(platform_lock *lock) { pthread_rwlock_unlock(&lock->handle); }
