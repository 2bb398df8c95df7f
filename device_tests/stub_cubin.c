/* A libcuda.so.1 without a GPU, for real cubins: it says what it loads, finds kernels by name and takes launches, but
 * computes nothing; device memory is the host's. runtime/tests/stub_cuda.c computes, and knows the sample alone.
 *
 * STUB_CAPABILITY: of the device, such as 87; without it there is none. STUB_FREE: bytes. */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define TAKES(name, parameters) EXPORT int name parameters { return 0; }
enum { INVALID = 1, NO_MEMORY = 2, NOT_FOUND = 500, MOST_THREADS = 1024, MAJOR = 75, MINOR = 76, CUDA_MACHINE = 190 };

typedef struct kernel_node { /* as in cuda.c */
    void *function;
    unsigned groups[3], threads[3], shared;
    void **arguments, **extra;
    void *kernel, *context;
} kernel_node;

static const char *image;
static size_t image_bytes;
static unsigned nodes;
static int here;

static int number(const char *name) { return getenv(name) != NULL ? atoi(getenv(name)) : 0; }

EXPORT int cuDeviceGetCount(int *count) { return *count = number("STUB_CAPABILITY") > 0, 0; }
EXPORT int cuDeviceGet(int *device, int index) { return *device = index, 0; }
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = number("STUB_CAPABILITY");
    if (attribute != MAJOR && attribute != MINOR) return INVALID;
    *value = attribute == MAJOR ? capability / 10 : capability % 10;
    return device;
}
EXPORT int cuDeviceGetName(char *name) { return *name = '\0', 0; }
EXPORT int cuDriverGetVersion(int *version) { return *version = 1, 0; }
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &here, device; }
EXPORT int cuModuleLoadData(void **loaded, const void *data) {
    Elf64_Ehdr header;
    memcpy(&header, data, sizeof header);
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != CUDA_MACHINE) return INVALID;
    image = data;
    image_bytes = (size_t)header.e_shoff + (size_t)header.e_shnum * header.e_shentsize;
    *loaded = (void *)(uintptr_t)data;
    fprintf(stderr, "loads sm_%u\n", header.e_flags & 0xFFu);
    return 0;
}
EXPORT int cuModuleGetFunction(void **found, void *loaded, const char *name) {
    *found = memmem(image, image_bytes, name, strlen(name) + 1);
    return loaded == image && *found != NULL ? 0 : NOT_FOUND;
}
EXPORT int cuMemGetInfo_v2(size_t *left, size_t *total) {
    return *total = *left = getenv("STUB_FREE") != NULL ? (size_t)number("STUB_FREE") : (size_t)1 << 33, 0;
}
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    *address = (uint64_t)(uintptr_t)calloc(1, bytes);
    return *address != 0 ? 0 : NO_MEMORY;
}
EXPORT int cuMemFree_v2(uint64_t address) { return free((void *)(uintptr_t)address), 0; }
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    return memcpy((void *)(uintptr_t)to, from, bytes), stream != &here;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    return memcpy(to, (void *)(uintptr_t)from, bytes), stream != &here;
}
EXPORT int cuStreamCreate(void **stream, unsigned flags) { return *stream = &here, (int)flags; }
EXPORT int cuEventCreate(void **event, unsigned flags) { return *event = &here, (int)flags; }
EXPORT int cuEventElapsedTime(float *milliseconds, void *first, void *second) {
    return *milliseconds = 0.5f, first != second;
}
EXPORT int cuLaunchKernel(void *kernel, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz) {
    return kernel == NULL || x == 0 || y != 1 || z != 1 || bx == 0 || bx > MOST_THREADS || by != 1 || bz != 1;
}
EXPORT int cuGraphCreate(void **graph, unsigned flags) { return nodes = 0, *graph = &here, (int)flags; }
EXPORT int cuGraphAddKernelNode_v2(void **node, void *graph, void *const *earlier, size_t count, const kernel_node *n) {
    for (size_t i = 0; i < count; i++)
        if (earlier[i] == NULL) return INVALID;
    nodes++;
    *node = graph;
    return cuLaunchKernel(n->function, n->groups[0], n->groups[1], n->groups[2], n->threads[0], n->threads[1], n->threads[2]);
}
EXPORT int cuGraphAddMemsetNode(void **node, void *graph) { return nodes++, *node = graph, 0; }
EXPORT int cuGraphInstantiateWithFlags(void **made, void *graph) {
    fprintf(stderr, "graph of %u\n", nodes);
    return *made = graph, 0;
}
TAKES(cuInit, (unsigned flags __attribute__((unused))))
TAKES(cuDevicePrimaryCtxRelease_v2, (void))
TAKES(cuCtxSetCurrent, (void))
TAKES(cuModuleUnload, (void))
TAKES(cuMemHostRegister_v2, (void))
TAKES(cuMemHostUnregister, (void))
TAKES(cuMemsetD8Async, (void))
TAKES(cuStreamDestroy_v2, (void))
TAKES(cuStreamSynchronize, (void))
TAKES(cuStreamBeginCapture_v2, (void))
TAKES(cuStreamEndCapture, (void))
TAKES(cuGraphAddChildGraphNode, (void))
TAKES(cuEventRecord, (void))
TAKES(cuEventDestroy_v2, (void))
TAKES(cuGraphDestroy, (void))
TAKES(cuGraphExecDestroy, (void))
TAKES(cuGraphLaunch, (void))
