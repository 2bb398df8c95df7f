/* A libOpenCL.so.1 in front of the real one, which it counts the calls of and makes smaller than it is.
 *
 * SHIM_REAL: the path of the real one. Numbers: SHIM_DEVICE_GROUP, SHIM_KERNEL_GROUP (the most items of a group),
 * SHIM_LOCAL, SHIM_MEMORY (bytes), SHIM_NANOSECONDS (that every command took). Set or not: SHIM_NO_BINARIES (the driver
 * takes none). SHIM_DRIVER: a version. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { DEVICE_GROUP = 0x1004, MEMORY = 0x101F, LOCAL = 0x1023, DRIVER = 0x102D, KERNEL_GROUP = 0x11B0 };
enum { START = 0x1282, INVALID_BINARY = -42, INVALID_GROUP = -54, MOST_BUFFERS = 4096 };

/* What a test asks for by name: `shim_count`. */
static struct {
    int64_t sources, binaries, waits, launches, largest_group, live_bytes, live_objects;
} counted;
static int from_source;
static struct {
    void *object;
    size_t bytes;
} buffers[MOST_BUFFERS];

EXPORT int64_t shim_count(const char *name) {
    if (strcmp(name, "sources") == 0) return counted.sources;
    if (strcmp(name, "binaries") == 0) return counted.binaries;
    if (strcmp(name, "waits") == 0) return counted.waits;
    if (strcmp(name, "launches") == 0) return counted.launches;
    if (strcmp(name, "largest_group") == 0) return counted.largest_group;
    if (strcmp(name, "live_bytes") == 0) return counted.live_bytes;
    if (strcmp(name, "live_objects") == 0) return counted.live_objects;
    abort();
}

static void *real(const char *name) {
    static void *library;
    if (library == NULL) library = dlopen(getenv("SHIM_REAL"), RTLD_NOW | RTLD_LOCAL);
    void *found = library != NULL ? dlsym(library, name) : NULL;
    if (found == NULL) abort();
    return found;
}

static int64_t number(const char *name, int64_t otherwise) {
    const char *text = getenv(name);
    return text != NULL ? atoll(text) : otherwise;
}

static void lower(void *value, size_t bytes, const char *name) {
    uint64_t own = 0;
    memcpy(&own, value, bytes);
    uint64_t most = (uint64_t)number(name, INT64_MAX);
    if (most < own) memcpy(value, &most, bytes);
}

/* `FORWARD(result, name, (parameters), (arguments))`: one that only passes on. */
#define REAL(result, name, parameters) ((result(*) parameters)(uintptr_t)real(#name))
#define FORWARD(result, name, parameters, arguments) \
    EXPORT result name parameters { return REAL(result, name, parameters) arguments; }
#define MAKE(name, parameters, arguments)                              \
    EXPORT void *name parameters {                                     \
        void *made = REAL(void *, name, parameters) arguments;         \
        counted.live_objects += made != NULL;                          \
        return made;                                                   \
    }
#define RELEASE(name) \
    EXPORT int32_t name(void *o) { return counted.live_objects--, REAL(int32_t, name, (void *))(o); }

FORWARD(int32_t, clGetPlatformIDs, (uint32_t n, void **p, uint32_t *m), (n, p, m))
FORWARD(int32_t, clGetDeviceIDs, (void *p, uint64_t t, uint32_t n, void **d, uint32_t *m), (p, t, n, d, m))
FORWARD(int32_t, clGetProgramInfo, (void *p, uint32_t w, size_t n, void *v, size_t *m), (p, w, n, v, m))
FORWARD(int32_t, clSetKernelArg, (void *k, uint32_t i, size_t n, const void *v), (k, i, n, v))
MAKE(clCreateContext, (const void *p, uint32_t n, void *const *d, void *f, void *c, int32_t *e), (p, n, d, f, c, e))
MAKE(clCreateCommandQueue, (void *c, void *d, uint64_t p, int32_t *e), (c, d, p, e))
MAKE(clCreateKernel, (void *p, const char *n, int32_t *e), (p, n, e))
RELEASE(clReleaseContext)
RELEASE(clReleaseCommandQueue)
RELEASE(clReleaseProgram)
RELEASE(clReleaseKernel)
RELEASE(clReleaseEvent)

EXPORT int32_t clGetDeviceInfo(void *d, uint32_t what, size_t n, void *value, size_t *m) {
    int32_t code = REAL(int32_t, clGetDeviceInfo, (void *, uint32_t, size_t, void *, size_t *))(d, what, n, value, m);
    if (code != 0 || value == NULL) return code;
    if (what == DEVICE_GROUP) lower(value, sizeof(size_t), "SHIM_DEVICE_GROUP");
    if (what == LOCAL) lower(value, sizeof(uint64_t), "SHIM_LOCAL");
    if (what == MEMORY) lower(value, sizeof(uint64_t), "SHIM_MEMORY");
    if (what == DRIVER && getenv("SHIM_DRIVER") != NULL) snprintf(value, n, "%s", getenv("SHIM_DRIVER"));
    return code;
}

EXPORT int32_t clGetKernelWorkGroupInfo(void *k, void *d, uint32_t what, size_t n, void *value, size_t *m) {
    int32_t code = REAL(int32_t, clGetKernelWorkGroupInfo, (void *, void *, uint32_t, size_t, void *, size_t *))(
        k, d, what, n, value, m);
    if (code != 0 || what != KERNEL_GROUP) return code;
    lower(value, sizeof(size_t), "SHIM_DEVICE_GROUP");
    lower(value, sizeof(size_t), "SHIM_KERNEL_GROUP");
    return code;
}

EXPORT void *clCreateProgramWithSource(void *c, uint32_t n, const char *const *t, const size_t *l, int32_t *e) {
    from_source = 1;
    counted.live_objects++;
    return REAL(void *, clCreateProgramWithSource, (void *, uint32_t, const char *const *, const size_t *, int32_t *))(
        c, n, t, l, e);
}

EXPORT void *clCreateProgramWithBinary(void *c, uint32_t n, void *const *d, const size_t *l, const uint8_t *const *b,
                                       int32_t *s, int32_t *e) {
    from_source = 0;
    if (getenv("SHIM_NO_BINARIES") != NULL) return *e = INVALID_BINARY, NULL;
    counted.live_objects++;
    return REAL(void *, clCreateProgramWithBinary, (void *, uint32_t, void *const *, const size_t *,
                                                    const uint8_t *const *, int32_t *, int32_t *))(c, n, d, l, b, s, e);
}

EXPORT int32_t clBuildProgram(void *p, uint32_t n, void *const *d, const char *o, void *f, void *c) {
    *(from_source ? &counted.sources : &counted.binaries) += 1;
    return REAL(int32_t, clBuildProgram, (void *, uint32_t, void *const *, const char *, void *, void *))(p, n, d, o, f, c);
}

EXPORT void *clCreateBuffer(void *c, uint64_t f, size_t bytes, void *h, int32_t *e) {
    void *made = REAL(void *, clCreateBuffer, (void *, uint64_t, size_t, void *, int32_t *))(c, f, bytes, h, e);
    for (int i = 0; made != NULL && i < MOST_BUFFERS; i++) {
        if (buffers[i].object != NULL) continue;
        buffers[i].object = made;
        buffers[i].bytes = bytes;
        counted.live_bytes += (int64_t)bytes;
        break;
    }
    return made;
}

EXPORT int32_t clReleaseMemObject(void *o) {
    for (int i = 0; i < MOST_BUFFERS; i++) {
        if (buffers[i].object != o) continue;
        buffers[i].object = NULL;
        counted.live_bytes -= (int64_t)buffers[i].bytes;
        break;
    }
    return REAL(int32_t, clReleaseMemObject, (void *))(o);
}

EXPORT int32_t clEnqueueNDRangeKernel(void *q, void *k, uint32_t d, const size_t *o, const size_t *g, const size_t *l,
                                      uint32_t n, const void *w, void **e) {
    counted.launches++;
    if ((int64_t)*l > counted.largest_group) counted.largest_group = (int64_t)*l;
    if ((int64_t)*l > number("SHIM_DEVICE_GROUP", INT64_MAX) || (int64_t)*l > number("SHIM_KERNEL_GROUP", INT64_MAX))
        return INVALID_GROUP;
    counted.live_objects += e != NULL;
    return REAL(int32_t, clEnqueueNDRangeKernel, (void *, void *, uint32_t, const size_t *, const size_t *,
                                                  const size_t *, uint32_t, const void *, void **))(q, k, d, o, g, l, n, w, e);
}

EXPORT int32_t clEnqueueWriteBuffer(void *q, void *b, uint32_t now, size_t o, size_t n, const void *p, uint32_t m,
                                    const void *w, void *e) {
    counted.waits += now != 0;
    return REAL(int32_t, clEnqueueWriteBuffer, (void *, void *, uint32_t, size_t, size_t, const void *, uint32_t,
                                                const void *, void *))(q, b, now, o, n, p, m, w, e);
}

EXPORT int32_t clEnqueueReadBuffer(void *q, void *b, uint32_t now, size_t o, size_t n, void *p, uint32_t m,
                                   const void *w, void *e) {
    counted.waits += now != 0;
    return REAL(int32_t, clEnqueueReadBuffer, (void *, void *, uint32_t, size_t, size_t, void *, uint32_t,
                                               const void *, void *))(q, b, now, o, n, p, m, w, e);
}

EXPORT int32_t clEnqueueFillBuffer(void *q, void *b, const void *p, size_t ps, size_t o, size_t n, uint32_t m,
                                   const void *w, void **e) {
    counted.live_objects += e != NULL;
    return REAL(int32_t, clEnqueueFillBuffer, (void *, void *, const void *, size_t, size_t, size_t, uint32_t,
                                               const void *, void **))(q, b, p, ps, o, n, m, w, e);
}

EXPORT int32_t clFinish(void *q) { return counted.waits++, REAL(int32_t, clFinish, (void *))(q); }

EXPORT int32_t clWaitForEvents(uint32_t n, void *const *e) {
    return counted.waits++, REAL(int32_t, clWaitForEvents, (uint32_t, void *const *))(n, e);
}

EXPORT int32_t clGetEventProfilingInfo(void *e, uint32_t what, size_t n, void *value, size_t *m) {
    int32_t code = REAL(int32_t, clGetEventProfilingInfo, (void *, uint32_t, size_t, void *, size_t *))(
        e, what, n, value, m);
    uint64_t own = (uint64_t)(what == START ? 0 : number("SHIM_NANOSECONDS", 0)) + 1;
    if (code == 0 && getenv("SHIM_NANOSECONDS") != NULL) memcpy(value, &own, sizeof own);
    return code;
}
