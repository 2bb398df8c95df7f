/* A libcublasLt.so without a GPU, on the streams and the memory of stub_cuda.c. It refuses what the real one would, an
 * algorithm that it did not give out, and to be captured before it has run once; and it says when it looks for algorithms.
 *
 * STUB_LIBRARY: microseconds of a product. STUB_VERSION: the library's. STUB_FAILS: a function that fails. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "stub_stream.h"

#define EXPORT __attribute__((visibility("default")))
enum { INVALID = 7, NOT_SUPPORTED = 15, F32 = 0, MAGIC = 0x57AB };
enum { COMPUTE_F32 = 68, COMPUTE_TF32 = 77, LEFT_TURNED = 3, RIGHT_TURNED = 4, BATCH = 5, STRIDE = 6 };

typedef struct operation {
    int32_t turned[2];
} operation;

typedef struct layout {
    uint64_t rows, columns;
    int64_t leading, stride;
    int32_t batch;
} layout;

typedef struct preference {
    uint32_t reductions, alignments[4];
} preference;

static int loaded;

static int fails(const char *function) {
    const char *text = getenv("STUB_FAILS");
    return text != NULL && strcmp(text, function) == 0;
}

static uint64_t version(void) { return getenv("STUB_VERSION") != NULL ? (uint64_t)atol(getenv("STUB_VERSION")) : 130000; }

EXPORT int cublasLtCreate(void **handle) { return *handle = &loaded, fails("create") ? INVALID : 0; }
EXPORT int cublasLtDestroy(void *handle) { return handle == &loaded ? 0 : INVALID; }
EXPORT size_t cublasLtGetVersion(void) { return (size_t)version(); }

static int made(void **object, size_t bytes, const char *function) {
    *object = fails(function) ? NULL : calloc(1, bytes);
    return *object != NULL ? 0 : INVALID;
}
static int destroyed(void *object) { return free(object), 0; }

EXPORT int cublasLtMatmulDescCreate(void **made_operation, int compute, int scale) {
    if ((compute != COMPUTE_F32 && compute != COMPUTE_TF32) || scale != F32) return INVALID;
    return made(made_operation, sizeof(operation), "describe");
}
EXPORT int cublasLtMatmulDescSetAttribute(operation *o, int attribute, const void *value, size_t bytes) {
    if ((attribute != LEFT_TURNED && attribute != RIGHT_TURNED) || bytes != sizeof(int32_t)) return INVALID;
    return memcpy(&o->turned[attribute - LEFT_TURNED], value, bytes), 0;
}
EXPORT int cublasLtMatmulDescDestroy(void *o) { return destroyed(o); }

EXPORT int cublasLtMatrixLayoutCreate(void **made_layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (type != F32 || leading < (int64_t)rows || made(made_layout, sizeof(layout), "layout") != 0) return INVALID;
    *(layout *)*made_layout = (layout){rows, columns, leading, 0, 1};
    return 0;
}
EXPORT int cublasLtMatrixLayoutSetAttribute(layout *l, int attribute, const void *value, size_t bytes) {
    if (attribute == BATCH && bytes == sizeof l->batch) return memcpy(&l->batch, value, bytes), 0;
    if (attribute == STRIDE && bytes == sizeof l->stride) return memcpy(&l->stride, value, bytes), 0;
    return INVALID;
}
EXPORT int cublasLtMatrixLayoutDestroy(void *l) { return destroyed(l); }

EXPORT int cublasLtMatmulPreferenceCreate(void **made_preference) {
    if (made(made_preference, sizeof(preference), "preference") != 0) return INVALID;
    *(preference *)*made_preference = (preference){7, {256, 256, 256, 256}};
    return 0;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(preference *p, int attribute, const void *value, size_t bytes) {
    if (bytes != sizeof(uint32_t)) return INVALID;
    if (attribute == 3) return memcpy(&p->reductions, value, bytes), 0;
    if (attribute < 5 || attribute > 8) return INVALID;
    return memcpy(&p->alignments[attribute - 5], value, bytes), 0;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void *p) { return destroyed(p); }

typedef struct heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int32_t state;
    float waves;
    int32_t reserved[4];
} heuristic;

/* column-major d = op(a) op(b). */
static int fits(const operation *o, const layout *a, const layout *b, const layout *d) {
    uint64_t rows = o->turned[0] ? a->columns : a->rows, depth = o->turned[0] ? a->rows : a->columns;
    uint64_t other = o->turned[1] ? b->columns : b->rows, columns = o->turned[1] ? b->rows : b->columns;
    return rows == d->rows && columns == d->columns && depth == other && a->batch == d->batch && b->batch == d->batch;
}

/* First what needs a workspace, then one that cannot be had, then the one that is. */
EXPORT int cublasLtMatmulAlgoGetHeuristic(void *handle, const operation *o, const layout *a, const layout *b,
                                          const layout *c, const layout *d, const preference *p, int most,
                                          heuristic *found, int *count) {
    if (handle != &loaded || c != d || !fits(o, a, b, d) || p->reductions != 0 || most < 3) return INVALID;
    for (int i = 0; i < 4; i++)
        if (p->alignments[i] != 64) return INVALID;
    fprintf(stderr, "looks for algorithms\n");
    if (fails("heuristic")) return NOT_SUPPORTED;
    memset(found, 0, 3 * sizeof *found);
    found[0].workspace = 1024;
    found[1].state = NOT_SUPPORTED;
    found[2].algorithm[0] = MAGIC;
    found[2].algorithm[7] = version();
    return *count = 3, 0;
}

/* words: a, b, d; rows, columns, depth; then for a, b, d leading and stride; turned a, turned b; batch. */
static void multiply(const uint64_t *w) {
    const char *text = getenv("STUB_LIBRARY");
    struct timespec time = {0, text != NULL ? atol(text) * 1000 : 0};
    if (time.tv_nsec > 0) nanosleep(&time, NULL);
    for (uint64_t n = 0; n < w[14]; n++) {
        const float *a = (const float *)(uintptr_t)w[0] + n * w[7], *b = (const float *)(uintptr_t)w[1] + n * w[9];
        float *d = (float *)(uintptr_t)w[2] + n * w[11];
        for (uint64_t i = 0; i < w[3]; i++)
            for (uint64_t j = 0; j < w[4]; j++) {
                float sum = 0;
                for (uint64_t k = 0; k < w[5]; k++)
                    sum += a[w[12] ? i * w[6] + k : k * w[6] + i] * b[w[13] ? k * w[8] + j : j * w[8] + k];
                d[j * w[10] + i] = sum;
            }
    }
}

EXPORT int cublasLtMatmul(void *handle, const operation *o, const float *one, const void *a, const layout *la,
                          const void *b, const layout *lb, const float *zero, const void *c, const layout *lc, void *d,
                          const layout *ld, const uint64_t *algorithm, void *workspace, size_t bytes, void *stream) {
    if (handle != &loaded || *one != 1 || *zero != 0 || c != d || lc != ld || workspace != NULL || bytes != 0) return INVALID;
    if (!fits(o, la, lb, ld) || ((uintptr_t)a | (uintptr_t)b | (uintptr_t)d) % 64 != 0) return INVALID;
    if (fails("matmul") || algorithm[0] != MAGIC || algorithm[7] != version()) return NOT_SUPPORTED;
    uint64_t depth = o->turned[0] ? la->rows : la->columns;
    stub_work work = {multiply, {(uintptr_t)a, (uintptr_t)b, (uintptr_t)d, ld->rows, ld->columns, depth,
                                 (uint64_t)la->leading, (uint64_t)la->stride, (uint64_t)lb->leading,
                                 (uint64_t)lb->stride, (uint64_t)ld->leading, (uint64_t)ld->stride,
                                 (uint64_t)o->turned[0], (uint64_t)o->turned[1], (uint64_t)ld->batch}};
    int code = stub_submit(&work, !loaded, stream);
    loaded = 1;
    return code;
}
