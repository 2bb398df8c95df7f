/* Saves and loads checkpoints while things go wrong: driver ARTIFACT CHECKPOINT MODE [CALL].
 *
 * State number v is: every element of everything that training changes has the integer v. The program first loads
 * CHECKPOINT, if it exists, and checks that it is one such state whole, with v as its step. Then it saves v + 1:
 *
 *   save          once; prints the status
 *   forever       again and again, v + 2, v + 3, ...; prints every v that is saved
 *   kill CALL     once; kills itself instead of system call number CALL of saving
 *   fail CALL     once; system call number CALL fails as on a full disk
 *   short CALL    once; if system call number CALL is a write, it writes but a part
 *
 * Nothing may be allocated by saving and loading: malloc aborts then. Exit status 1: a check failed, its line is on stderr. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "edgec.h"

#define CHECK(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%d: %s\n", __LINE__, #condition), exit(1)))

/* ---- System calls of the runtime, counted; the linker sends them here (-Wl,--wrap). ---- */

static const char *mode;
static int watched, call, chosen = -1; /* calls are counted while `watched` */

/* Whether this call shall fail. */
static int strikes(void) {
    if (!watched || call++ != chosen) return 0;
    if (strcmp(mode, "kill") == 0) raise(SIGKILL);
    errno = ENOSPC;
    return strcmp(mode, "fail") == 0;
}

int __real_open(const char *path, int flags, mode_t permissions);
int __real_flock(int descriptor, int operation);
int __real_ftruncate(int descriptor, off_t bytes);
ssize_t __real_write(int descriptor, const void *data, size_t bytes);
int __real_fsync(int descriptor);
int __real_rename(const char *from, const char *to);
int __real_close(int descriptor);

int __wrap_open(const char *path, int flags, ...) {
    mode_t permissions = 0;
    va_list arguments;
    va_start(arguments, flags);
    if (flags & O_CREAT) permissions = (mode_t)va_arg(arguments, unsigned);
    va_end(arguments);
    return strikes() ? -1 : __real_open(path, flags, permissions);
}
int __wrap_flock(int descriptor, int operation) { return strikes() ? -1 : __real_flock(descriptor, operation); }
int __wrap_ftruncate(int descriptor, off_t bytes) { return strikes() ? -1 : __real_ftruncate(descriptor, bytes); }
ssize_t __wrap_write(int descriptor, const void *data, size_t bytes) {
    int here = watched && call == chosen && strcmp(mode, "short") == 0;
    if (strikes()) return -1;
    return __real_write(descriptor, data, here ? (bytes + 1) / 2 : bytes);
}
int __wrap_fsync(int descriptor) { return strikes() ? -1 : __real_fsync(descriptor); }
int __wrap_rename(const char *from, const char *to) { return strikes() ? -1 : __real_rename(from, to); }
int __wrap_close(int descriptor) { return strikes() ? -1 : __real_close(descriptor); }

/* ---- No allocation while `watched` or `frozen`. ---- */

static int frozen;
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_memalign(size_t, size_t);
static void allowed(void) {
    if (frozen || watched) abort();
}
void *malloc(size_t n) { return allowed(), __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return allowed(), __libc_calloc(n, m); }
int posix_memalign(void **p, size_t alignment, size_t n) {
    allowed();
    *p = __libc_memalign(alignment, n);
    return *p == NULL;
}

/* ---- States. ---- */

static edgec_model *model;
static int32_t elements[1 << 20];

/* f32 and i32 only; the bits that an element of state v has. */
static int32_t bits_of(edgec_dtype dtype, uint64_t v) {
    float number = (float)v;
    int32_t bits = (int32_t)v;
    CHECK(dtype == EDGEC_F32 || dtype == EDGEC_I32);
    if (dtype == EDGEC_F32) memcpy(&bits, &number, sizeof bits);
    return bits;
}

static int next_changing(uint32_t *tensor, edgec_tensor_info *info) {
    for (; edgec_tensor_get(model, *tensor, info) == EDGEC_OK; ++*tensor)
        if (info->trained || info->kind == EDGEC_STATE) return 1;
    return 0;
}

static void set_state(uint64_t v) {
    edgec_tensor_info info;
    for (uint32_t i = 0; next_changing(&i, &info); i++) {
        CHECK(info.bytes <= sizeof elements);
        for (size_t k = 0; k < info.bytes / 4; k++) elements[k] = bits_of(info.dtype, v);
        CHECK(edgec_tensor_write(model, i, elements, info.bytes) == EDGEC_OK);
    }
}

static void check_state(uint64_t v) {
    edgec_tensor_info info;
    for (uint32_t i = 0; next_changing(&i, &info); i++) {
        CHECK(edgec_tensor_read(model, i, elements, info.bytes) == EDGEC_OK);
        for (size_t k = 0; k < info.bytes / 4; k++) CHECK(elements[k] == bits_of(info.dtype, v));
    }
}

static uint64_t load(const char *path) {
    edgec_progress progress = {0, 0};
    if (access(path, F_OK) != 0) return 0;
    frozen = 1;
    CHECK(edgec_checkpoint_load(model, path, &progress) == EDGEC_OK);
    frozen = 0;
    CHECK(progress.seed == ~progress.step);
    check_state(progress.step);
    return progress.step;
}

static edgec_status save(const char *path, uint64_t v) {
    edgec_progress progress = {v, ~v};
    set_state(v);
    watched = 1;
    edgec_status status = edgec_checkpoint_save(model, path, &progress);
    watched = 0;
    return status;
}

int main(int argc, char **argv) {
    CHECK(argc >= 4);
    const char *path = argv[2];
    mode = argv[3];
    if (argc > 4) chosen = atoi(argv[4]);
    setvbuf(stdout, NULL, _IONBF, 0);
    CHECK(edgec_model_open(argv[1], NULL, &model) == EDGEC_OK);
    uint64_t v = load(path);
    printf("loaded %llu\n", (unsigned long long)v);
    if (strcmp(mode, "forever") == 0) {
        for (;;) {
            CHECK(save(path, ++v) == EDGEC_OK);
            printf("saved %llu\n", (unsigned long long)v);
        }
    }
    printf("status %d\n", (int)save(path, v + 1));
    printf("calls %d\n", call);
    edgec_model_close(model);
    return 0;
}
