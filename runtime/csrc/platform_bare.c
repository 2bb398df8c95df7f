/* No operating system. Memory comes from the application's allocator, artifacts from its flash, kernels are linked in. */
#include "platform.h"

#ifdef EDGEC_BARE_METAL

/* ---- Memory: there is none but what edgec_options.allocator gives. ---- */

static void *allocate(void *context, size_t bytes, size_t alignment) {
    (void)context, (void)bytes, (void)alignment;
    return NULL;
}

static void release(void *context, void *memory, size_t bytes) { (void)context, (void)memory, (void)bytes; }

edgec_allocator platform_allocator(void) { return (edgec_allocator){allocate, release, NULL}; }

/* ---- Machine. An application with a clock defines this function itself; only profiles ask for the time. ---- */

__attribute__((weak)) uint64_t platform_nanoseconds(void) { return 0; }

uint32_t platform_cpu_count(void) { return 1; }

/* ---- Files. ---- */

edgec_status platform_file_map(const char *path, platform_file *file) {
    (void)path, (void)file;
    return EDGEC_CANNOT_READ;
}

void platform_file_unmap(platform_file *file) { (void)file; }
void platform_file_forget(const platform_file *file) { (void)file; }

edgec_status platform_writer_open(platform_writer *writer, const char *path) {
    (void)writer, (void)path;
    return EDGEC_CANNOT_WRITE;
}

edgec_status platform_writer_write(platform_writer *writer, const void *data, size_t bytes) {
    (void)writer, (void)data, (void)bytes;
    return EDGEC_CANNOT_WRITE;
}

edgec_status platform_writer_commit(platform_writer *writer) {
    (void)writer;
    return EDGEC_CANNOT_WRITE;
}

void platform_writer_abandon(platform_writer *writer) { (void)writer; }

/* ---- Code. ---- */

edgec_status platform_code_map(const platform_file *file, size_t offset, size_t bytes, platform_code *code) {
    (void)file, (void)offset, (void)bytes, (void)code;
    return EDGEC_CANNOT_MAP;
}

void platform_code_unmap(platform_code *code) { (void)code; }

/* ---- One thread: nobody to exclude. ---- */

edgec_status platform_lock_init(platform_lock *lock) {
    (void)lock;
    return EDGEC_OK;
}

void platform_lock_destroy(platform_lock *lock) { (void)lock; }
void platform_lock_read(platform_lock *lock) { (void)lock; }
void platform_lock_write(platform_lock *lock) { (void)lock; }
void platform_lock_release(platform_lock *lock) { (void)lock; }

#endif
