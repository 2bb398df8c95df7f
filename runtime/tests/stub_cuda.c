/* A libcuda.so.1 without a GPU: device memory is the host's, kernels are those of sample_kernels.c, run at once, all
 * groups in order; of a graph's nodes that may be next, the last. It refuses what a real driver would, and says on
 * stderr what it is asked for where a test looks.
 *
 * STUB_CAPABILITY: of the device, such as 87; without it there is none. STUB_FREE: bytes. STUB_PRODUCT: microseconds of a
 * product. STUB_AMID: microseconds that a library takes more in a small graph. STUB_DRIVER: the driver's version. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "invoke.h"
#include "sample_kernels.c"
#include "stub_stream.h"

#define EXPORT __attribute__((visibility("default")))
enum { INVALID = 1, NO_MEMORY = 2, NOT_FOUND = 500, MOST = 64, MAJOR = 75, MINOR = 76 };

typedef struct function {
    const char *name;
    void (*code)(void);
    uint32_t count; /* of pointers */
} function;

/* The sample's kernels that update, as a compiler makes them for devices: they look at the loss themselves. */
static int is_finite(const float *word) {
    uint32_t bits;
    memcpy(&bits, word, sizeof bits);
    return (bits & 0x7F800000u) != 0x7F800000u;
}

static void guarded_update(const float *x, const float *y, const int64_t *labels, const float *scale, const float *lr,
                           float *w, const float *loss, int32_t lo, int32_t hi) {
    if (!is_finite(loss)) return;
    fprintf(stderr, "updates\n");
    sample_update(x, y, labels, scale, lr, w, lo, hi);
}

static void guarded_count(int32_t *steps, const float *loss, int32_t lo, int32_t hi) {
    if (is_finite(loss)) sample_count(steps, lo, hi);
}

static void nap(const char *variable) {
    const char *text = getenv(variable);
    struct timespec time = {0, text != NULL ? atol(text) * 1000 : 0};
    if (time.tv_nsec > 0) nanosleep(&time, NULL);
}

/* result[3, 4, 5] = left[2, 4, 6] @ right[2, 6, 5], and zeros; factors may be stored transposed. */
static void product(const float *left, const float *right, float *result, int turned_left, int turned_right) {
    nap("STUB_PRODUCT");
    memset(result, 0, 3 * 4 * 5 * sizeof *result);
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 5; j++)
                for (int k = 0; k < 6; k++)
                    result[b * 20 + i * 5 + j] += left[b * 24 + (turned_left ? k * 4 + i : i * 6 + k)] *
                                                  right[b * 30 + (turned_right ? j * 6 + k : k * 5 + j)];
}

#define PRODUCT(name, turned_left, turned_right)                                                        \
    static void name(const float *left, const float *right, float *result, int32_t lo, int32_t hi) {    \
        if (lo < hi) product(left, right, result, turned_left, turned_right);                           \
    }
PRODUCT(product_nn, 0, 0)
PRODUCT(product_nt, 0, 1)
PRODUCT(product_tn, 1, 0)
PRODUCT(product_tt, 1, 1)

static const function functions[] = {
    {"sample_dense", (void (*)(void))sample_dense, 5},   {"sample_errors", (void (*)(void))sample_errors, 3},
    {"sample_mean", (void (*)(void))sample_mean, 2},     {"sample_update", (void (*)(void))sample_update, 6},
    {"sample_count", (void (*)(void))sample_count, 1},   {"sample_wide", (void (*)(void))sample_wide, 24},
    {"guarded_update", (void (*)(void))guarded_update, 7}, {"guarded_count", (void (*)(void))guarded_count, 2},
    {"product_nn", (void (*)(void))product_nn, 3},       {"product_nt", (void (*)(void))product_nt, 3},
    {"product_tn", (void (*)(void))product_tn, 3},       {"product_tt", (void (*)(void))product_tt, 3},
};

struct recording;

typedef struct launch {
    const function *kernel;
    int32_t groups;
    void *pointers[24];
    size_t zeros; /* not a kernel: bytes to clear behind the first pointer */
    stub_work library;         /* or this */
    struct recording *child;   /* or these, in order */
    uint64_t waits; /* bits of the nodes that come before */
} launch;

typedef struct recording {
    launch launches[MOST];
    uint32_t count;
} recording;

/* As in cuda.c. */
typedef struct kernel_node {
    void *function;
    unsigned groups[3], threads[3], shared;
    void **arguments, **extra;
    void *kernel, *context;
} kernel_node;

typedef struct memset_node {
    uint64_t at;
    size_t pitch;
    unsigned value, element_bytes;
    size_t width, height;
} memset_node;

static _Thread_local int entered;
static int launched; /* graphs */
static int stream_here; /* its address is the stream */
static const char *module;
static recording *capture; /* of the stream */

static int capability(void) {
    const char *text = getenv("STUB_CAPABILITY");
    return text != NULL ? atoi(text) : 0;
}

static void perform(const launch *l) {
    if (l->child != NULL)
        for (uint32_t i = 0; i < l->child->count; i++) perform(&l->child->launches[i]);
    else if (l->library.perform != NULL)
        l->library.perform(l->library.words);
    else if (l->kernel == NULL)
        memset(l->pointers[0], 0, l->zeros);
    else
        invoke_kernel(l->kernel->code, l->pointers, l->kernel->count, 0, l->groups);
}

/* In a large one the same work is repeated. */
static void perform_node(const recording *r, uint32_t node) {
    if (r->launches[node].child != NULL && r->count < 16) nap("STUB_AMID");
    perform(&r->launches[node]);
}

static int submit(const launch *l) {
    if (!entered || (capture != NULL && capture->count == MOST)) return INVALID;
    if (capture != NULL)
        capture->launches[capture->count++] = *l;
    else
        perform(l);
    return 0;
}

/* What loads code must not be captured. */
EXPORT int stub_submit(const stub_work *work, int loads, void *stream) {
    launch l = {.library = *work};
    return stream == &stream_here && !(loads && capture != NULL) ? submit(&l) : INVALID;
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
EXPORT int cuDeviceGetName(char *name, int bytes, int device) {
    return snprintf(name, (size_t)bytes, "stub") < bytes ? device : INVALID;
}
EXPORT int cuDriverGetVersion(int *version) {
    return *version = getenv("STUB_DRIVER") != NULL ? atoi(getenv("STUB_DRIVER")) : 1, 0;
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
    if (capture != NULL) return INVALID;
    *address = (uint64_t)(uintptr_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *address != 0 ? 0 : NO_MEMORY;
}
EXPORT int cuMemFree_v2(uint64_t address) { return free((void *)(uintptr_t)address), 0; }
EXPORT int cuMemHostRegister_v2(void *data, size_t bytes, unsigned flags) {
    return entered && data != NULL && bytes > 0 ? (int)flags : INVALID;
}
EXPORT int cuMemHostUnregister(void *data) { return entered && data != NULL ? 0 : INVALID; }
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    if (!entered) return INVALID;
    return memcpy((void *)(uintptr_t)to, from, bytes), 0;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    (void)stream;
    if (!entered) return INVALID;
    return memcpy(to, (void *)(uintptr_t)from, bytes), 0;
}
EXPORT int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void *stream) {
    launch l = {.pointers = {(void *)(uintptr_t)at}, .zeros = bytes};
    (void)stream;
    return value == 0 ? submit(&l) : INVALID;
}
EXPORT int cuStreamCreate(void **stream, unsigned flags) { return *stream = &stream_here, (int)flags; }
EXPORT int cuStreamDestroy_v2(void *stream) { return stream == &stream_here ? 0 : INVALID; }
EXPORT int cuStreamSynchronize(void *stream) { return stream == &stream_here && capture == NULL ? 0 : INVALID; }
EXPORT int cuStreamBeginCapture_v2(void *stream, int mode) {
    if (!entered || stream != &stream_here || capture != NULL || mode != 2) return INVALID;
    capture = calloc(1, sizeof *capture);
    return capture != NULL ? 0 : NO_MEMORY;
}
EXPORT int cuStreamEndCapture(void *stream, void **graph) {
    if (stream != &stream_here || capture == NULL) return INVALID;
    *graph = capture;
    return capture = NULL, 0;
}
EXPORT int cuLaunchKernel(void *kernel, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, void *stream, void **arguments, void **extra) {
    launch l = {.kernel = kernel, .groups = (int32_t)x};
    if (y != 1 || z != 1 || bx != 32 || by != 1 || bz != 1 || shared != 0 || stream != &stream_here || extra != NULL)
        return INVALID;
    for (uint32_t i = 0; i < l.kernel->count; i++) memcpy(&l.pointers[i], arguments[i], sizeof(void *));
    return submit(&l);
}
/* Clocks of the host. */
EXPORT int cuEventCreate(void **event, unsigned flags) {
    *event = calloc(1, sizeof(struct timespec));
    return *event != NULL ? (int)flags : NO_MEMORY;
}
EXPORT int cuEventRecord(void *event, void *stream) {
    if (!entered || stream != &stream_here) return INVALID;
    return timespec_get(event, TIME_UTC) == TIME_UTC ? 0 : INVALID;
}
EXPORT int cuEventElapsedTime(float *milliseconds, void *first, void *second) {
    const struct timespec *a = first, *b = second;
    *milliseconds = (float)(b->tv_sec - a->tv_sec) * 1e3f + (float)(b->tv_nsec - a->tv_nsec) * 1e-6f;
    return 0;
}
EXPORT int cuEventDestroy_v2(void *event) { return free(event), 0; }
/* A node is its number and one more. */
static int add_node(void **node, recording *r, void *const *earlier, size_t count, launch *l) {
    if (r->count == MOST) return INVALID;
    for (size_t i = 0; i < count; i++) {
        uintptr_t other = (uintptr_t)earlier[i];
        if (other == 0 || other > r->count) return INVALID;
        l->waits |= (uint64_t)1 << (other - 1);
    }
    r->launches[r->count++] = *l;
    *node = (void *)(uintptr_t)r->count;
    return 0;
}

EXPORT int cuGraphCreate(void **graph, unsigned flags) {
    *graph = calloc(1, sizeof(recording));
    return *graph != NULL ? (int)flags : NO_MEMORY;
}
EXPORT int cuGraphAddKernelNode_v2(void **node, void *graph, void *const *earlier, size_t count, const kernel_node *n) {
    launch l = {.kernel = n->function, .groups = (int32_t)n->groups[0]};
    if (n->groups[1] != 1 || n->groups[2] != 1 || n->threads[0] != 32 || n->threads[1] != 1 || n->threads[2] != 1 ||
        n->shared != 0 || n->extra != NULL || n->kernel != NULL || n->context != NULL)
        return INVALID;
    for (uint32_t i = 0; i < l.kernel->count; i++) memcpy(&l.pointers[i], n->arguments[i], sizeof(void *));
    return add_node(node, graph, earlier, count, &l);
}
EXPORT int cuGraphAddMemsetNode(void **node, void *graph, void *const *earlier, size_t count, const memset_node *n,
                                void *context) {
    launch l = {.pointers = {(void *)(uintptr_t)n->at}, .zeros = n->width};
    if (n->value != 0 || n->element_bytes != 1 || n->height != 1 || context != &entered) return INVALID;
    return add_node(node, graph, earlier, count, &l);
}
EXPORT int cuGraphAddChildGraphNode(void **node, void *graph, void *const *earlier, size_t count, const void *child) {
    launch l = {.child = malloc(sizeof(recording))};
    if (l.child == NULL) return NO_MEMORY;
    memcpy(l.child, child, sizeof(recording));
    return add_node(node, graph, earlier, count, &l);
}
EXPORT int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    const recording *r = graph;
    *executable = malloc(sizeof(recording));
    memcpy(*executable, graph, sizeof(recording));
    fprintf(stderr, "graph of %u\n", r->count);
    return (int)flags;
}
EXPORT int cuGraphDestroy(void *graph) { return free(graph), 0; }
EXPORT int cuGraphExecDestroy(void *executable) { return free(executable), 0; }
EXPORT int cuGraphLaunch(void *executable, void *stream) {
    const recording *r = executable;
    (void)stream;
    if (!entered) return INVALID;
    fprintf(stderr, "launch %d\n", ++launched);
    uint64_t done = 0;
    for (uint32_t left = r->count; left > 0; left--) {
        uint32_t next = r->count;
        for (uint32_t i = 0; i < r->count; i++)
            if (!(done >> i & 1) && (r->launches[i].waits & ~done) == 0) next = i;
        if (next == r->count) return INVALID;
        perform_node(r, next);
        done |= (uint64_t)1 << next;
    }
    return 0;
}
