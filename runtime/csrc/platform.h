/* Everything that the runtime asks of an operating system. One file implements it: platform_posix.c, or
 * platform_bare.c where EDGEC_BARE_METAL is defined (no files, no threads; edgec_config.h). */
#ifndef EDGEC_PLATFORM_H
#define EDGEC_PLATFORM_H

#include "edgec_config.h"
#include "edgec.h"

/* ---- Machine. ---- */

uint32_t platform_arch(void);     /* enum format_arch */
uint64_t platform_features(void); /* bits of edgec.runtime.abi.Feature */
uint32_t platform_cpu_count(void);
uint64_t platform_nanoseconds(void); /* monotonic */

/* ---- Memory. ---- */

edgec_allocator platform_allocator(void);

/* ---- Files. ---- */

typedef struct platform_file {
    const uint8_t *data;
    size_t bytes;
    int descriptor; /* -1: the caller's memory */
} platform_file;

edgec_status platform_file_map(const char *path, platform_file *file);
void platform_file_unmap(platform_file *file);
/* Gives back the memory that reading the file took; what is read again comes again. */
void platform_file_forget(const platform_file *file);

/* A file that appears under its name only when it is complete. Its memory is the caller's; nothing is allocated. */
#define PLATFORM_MAX_PATH 4096
typedef struct platform_writer {
    const char *path; /* must outlive the writer */
    char temporary[PLATFORM_MAX_PATH];
    int descriptor;
} platform_writer;

/* Waits for another writer of the same path. */
edgec_status platform_writer_open(platform_writer *writer, const char *path);
edgec_status platform_writer_write(platform_writer *writer, const void *data, size_t bytes);
/* Syncs and renames; on failure removes the temporary file, as abandon does. Ends the writer either way. */
edgec_status platform_writer_commit(platform_writer *writer);
void platform_writer_abandon(platform_writer *writer);

/* The path of a file of what can be made again, in a folder that comes to be if it can: below `folder`, or if that is
 * NULL below $EDGEC_CACHE or the user's cache folder. EDGEC_CANNOT_WRITE if there is none, as `folder` "" says. */
edgec_status platform_cache_path(char path[PLATFORM_MAX_PATH], const char *folder, const char *name);

/* ---- Code. ---- */

typedef struct platform_code {
    const uint8_t *base; /* read-execute */
    size_t bytes;        /* of the mapping; 0: none */
} platform_code;

/* Makes `bytes` at `offset` of the file executable, from the file itself where the system allows it, else from a copy. */
edgec_status platform_code_map(const platform_file *file, size_t offset, size_t bytes, platform_code *code);
void platform_code_unmap(platform_code *code);

/* ---- Threads. ---- */

#ifdef EDGEC_BARE_METAL

typedef struct platform_lock {
    int unused;
} platform_lock;

#else

#include <pthread.h>

typedef struct platform_lock {
    pthread_rwlock_t handle;
} platform_lock;

typedef struct platform_thread {
    pthread_t handle;
} platform_thread;

/* A mutex and a condition: threads sleep until somebody wakes all of them. */
typedef struct platform_bell {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
} platform_bell;

edgec_status platform_thread_start(platform_thread *thread, void *(*body)(void *), void *argument);
void platform_thread_join(platform_thread *thread);
void platform_yield(void);
uint64_t platform_process(void); /* another number in a fork */

edgec_status platform_bell_init(platform_bell *bell);
void platform_bell_destroy(platform_bell *bell);
void platform_bell_lock(platform_bell *bell);
void platform_bell_unlock(platform_bell *bell);
void platform_bell_wait(platform_bell *bell); /* locked before and after; may return early */
void platform_bell_ring(platform_bell *bell); /* wakes all; locks by itself */

#endif

/* Many readers or one writer; a waiting writer goes before later readers. */
edgec_status platform_lock_init(platform_lock *lock);
void platform_lock_destroy(platform_lock *lock);
void platform_lock_read(platform_lock *lock);
void platform_lock_write(platform_lock *lock);
void platform_lock_release(platform_lock *lock);

#endif
