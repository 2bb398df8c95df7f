/* A libcuda.so.1 without a GPU: device memory is the host's, kernels are those of sample_kernels.c, run at once, all
 * groups in order. It refuses what a real driver would, and says on stderr what it is asked for where a test looks.
 *
 * STUB_CAPABILITY: of the device, such as 87; without it there is none. STUB_FREE: bytes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "invoke.h"
#include "sample_kernels.c"

#define EXPORT __attribute__((visibility("default")))
enum { INVALID = 1, NO_MEMORY = 2, NOT_FOUND = 500, MOST = 64, MAJOR = 75, MINOR = 76 };

typedef struct function {
    const char *name;
    void (*code)(void);
    uint32_t count; /* of pointers */
} function;

static const function functions[] = {
    {"sample_dense", (void (*)(void))sample_dense, 5},   {"sample_errors", (void (*)(void))sample_errors, 3},
    {"sample_mean", (void (*)(void))sample_mean, 2},     {"sample_update", (void (*)(void))sample_update, 6},
    {"sample_count", (void (*)(void))sample_count, 1},   {"sample_wide", (void (*)(void))sample_wide, 24},
};

typedef struct launch {
    const function *kernel;
    int32_t groups;
    void *pointers[24];
    size_t zeros; /* not a kernel: bytes to clear behind the first pointer */
} launch;

typedef struct recording {
    launch launches[MOST];
    uint32_t count;
} recording;

static _Thread_local int entered;
static recording *capturing;
static const char *module;

static int capability(void) {
    const char *text = getenv("STUB_CAPABILITY");
    return text != NULL ? atoi(text) : 0;
}

static void perform(const launch *l) {
    if (l->kernel == NULL)
        memset(l->pointers[0], 0, l->zeros);
    else
        invoke_kernel(l->kernel->code, l->pointers, l->kernel->count, 0, l->groups);
}

static int submit(const launch *l) {
    if (!entered) return INVALID;
    if (capturing == NULL) return perform(l), 0;
    if (capturing->count == MOST) return INVALID;
    capturing->launches[capturing->count++] = *l;
    return 0;
}

EXPORT int cuInit(unsigned flags) { return (int)flags; }
EXPORT int cuDeviceGetCount(int *count) { return *count = capability() > 0, 0; }
EXPORT int cuDeviceGet(int *device, int index) { return *device = index, 0; }
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    if (attribute != MAJOR && attribute != MINOR) return INVALID;
    *value = attribute == MAJOR ? capability() / 10 : capability() % 10;
    return 0;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) { return (void)device, *context = &entered, 0; }
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) { return device; }
EXPORT int cuCtxSetCurrent(void *context) { return entered = context != NULL, 0; }
EXPORT int cuModuleLoadData(void **loaded, const void *image) {
    module = image;
    *loaded = (void *)(uintptr_t)image;
    fprintf(stderr, "loads %.5s\n", module);
    return 0;
}
EXPORT int cuModuleUnload(void *loaded) { return loaded == module ? 0 : INVALID; }
EXPORT int cuModuleGetFunction(void **found, void *loaded, const char *name) {
    (void)loaded;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(functions[i].name, name) != 0) continue;
        *found = (void *)(uintptr_t)&functions[i];
        return 0;
    }
    return NOT_FOUND;
}
EXPORT int cuMemGetInfo_v2(size_t *left, size_t *total) {
    const char *text = getenv("STUB_FREE");
    *left = text != NULL ? (size_t)atol(text) : (size_t)1 << 30;
    return *total = *left, entered ? 0 : INVALID;
}
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    *address = (uint64_t)(uintptr_t)malloc(bytes);
    return *address != 0 ? 0 : NO_MEMORY;
}
EXPORT int cuMemFree_v2(uint64_t address) { return free((void *)(uintptr_t)address), 0; }
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    if (!entered || capturing != NULL) return INVALID;
    return memcpy((void *)(uintptr_t)to, from, bytes), 0;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    (void)stream;
    if (!entered || capturing != NULL) return INVALID;
    return memcpy(to, (void *)(uintptr_t)from, bytes), 0;
}
EXPORT int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void *stream) {
    launch l = {.pointers = {(void *)(uintptr_t)at}, .zeros = bytes};
    (void)stream;
    return value == 0 ? submit(&l) : INVALID;
}
EXPORT int cuStreamCreate(void **stream, unsigned flags) { return *stream = &capturing, (int)flags; }
EXPORT int cuStreamDestroy_v2(void *stream) { return stream == &capturing ? 0 : INVALID; }
EXPORT int cuStreamSynchronize(void *stream) { return stream == &capturing && capturing == NULL ? 0 : INVALID; }
EXPORT int cuLaunchKernel(void *kernel, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, void *stream, void **arguments, void **extra) {
    launch l = {.kernel = kernel, .groups = (int32_t)x};
    if (y != 1 || z != 1 || bx != 32 || by != 1 || bz != 1 || shared != 0 || stream != &capturing || extra != NULL)
        return INVALID;
    for (uint32_t i = 0; i < l.kernel->count; i++) memcpy(&l.pointers[i], arguments[i], sizeof(void *));
    return submit(&l);
}
EXPORT int cuStreamBeginCapture_v2(void *stream, int mode) {
    (void)stream;
    if (capturing != NULL || mode != 2) return INVALID;
    capturing = calloc(1, sizeof *capturing);
    return capturing != NULL ? 0 : NO_MEMORY;
}
EXPORT int cuStreamEndCapture(void *stream, void **graph) {
    (void)stream;
    *graph = capturing;
    capturing = NULL;
    return *graph != NULL ? 0 : INVALID;
}
EXPORT int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    *executable = malloc(sizeof(recording));
    memcpy(*executable, graph, sizeof(recording));
    fprintf(stderr, "graph of %u\n", ((const recording *)graph)->count);
    return (int)flags;
}
EXPORT int cuGraphDestroy(void *graph) { return free(graph), 0; }
EXPORT int cuGraphExecDestroy(void *executable) { return free(executable), 0; }
EXPORT int cuGraphLaunch(void *executable, void *stream) {
    const recording *r = executable;
    (void)stream;
    if (!entered || capturing != NULL) return INVALID;
    for (uint32_t i = 0; i < r->count; i++) perform(&r->launches[i]);
    return 0;
}
