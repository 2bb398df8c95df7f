/* Opening cuBLASLt, and choosing between its kernels and ours.
 *
 * It gets no workspace and may not cut sums: then branches of a recording share nothing, and the same algorithm gives the
 * same bits. Algorithms are remembered with the choice, so that these do not depend on what is found a second time. */
#include "cublaslt.h"

#if EDGEC_DEVICES

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "program_cache.h"

/* From the toolkit's headers: library_types.h, cublas_api.h, cublasLt.h. */
enum { F32 = 0, COMPUTE_F32 = 68, COMPUTE_TF32 = 77, OPERATION_A = 3, OPERATION_B = 4, TRANSPOSED = 1 };
enum { LAYOUT_BATCH = 5, LAYOUT_STRIDE = 6, PREFER_REDUCTIONS = 3, PREFER_ALIGNMENTS = 5, ALIGNMENTS = 4 };

typedef struct heuristic { /* cublasLtMatmulHeuristicResult_t */
    uint64_t algorithm[8];
    size_t workspace;
    int32_t state;
    float waves;
    int32_t reserved[4];
} heuristic;
_Static_assert(sizeof(heuristic) == 88 + sizeof(size_t), "heuristic");

enum {
    CANDIDATES = 4, /* algorithms that are tried */
    REPEATS = 20,   /* of a product in one recording */
    ALONE = 70,     /* percent of a kernel's time that its product must stay below: beside others it has less of the device */
    TOGETHER = 99,  /* and of all programs' time */
    TURNS = 3       /* of either, whose best is taken */
};

static const program_kind choices = {"cublaslt", 4096}; /* few share a name: who loses one may choose otherwise */

/* What is remembered of a product. */
typedef struct choice {
    uint64_t chosen;
    uint64_t algorithm[8];
} choice;

/* ---- The library. ---- */

static int load(cublaslt *lt, const char *name) {
    const struct {
        const char *name;
        void *function; /* address of the field */
    } symbols[] = {
        {"cublasLtCreate", &lt->Create},
        {"cublasLtDestroy", &lt->Destroy},
        {"cublasLtGetVersion", &lt->GetVersion},
        {"cublasLtMatmulDescCreate", &lt->DescCreate},
        {"cublasLtMatmulDescSetAttribute", &lt->DescSet},
        {"cublasLtMatmulDescDestroy", &lt->DescDestroy},
        {"cublasLtMatrixLayoutCreate", &lt->LayoutCreate},
        {"cublasLtMatrixLayoutSetAttribute", &lt->LayoutSet},
        {"cublasLtMatrixLayoutDestroy", &lt->LayoutDestroy},
        {"cublasLtMatmulPreferenceCreate", &lt->PreferenceCreate},
        {"cublasLtMatmulPreferenceSetAttribute", &lt->PreferenceSet},
        {"cublasLtMatmulPreferenceDestroy", &lt->PreferenceDestroy},
        {"cublasLtMatmulAlgoGetHeuristic", &lt->Heuristic},
        {"cublasLtMatmul", &lt->Matmul},
    };
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL); /* stays open, as drivers do */
    if (library == NULL) return 0;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (address == NULL) return 0;
        memcpy(symbols[i].function, &address, sizeof address);
    }
    if (lt->Create(&lt->handle) != 0) lt->handle = NULL;
    return lt->handle != NULL;
}

/* A product of ours, transposed: result' = right' left', where a matrix in rows is its transpose in columns. */
static int describe(cublaslt *lt, cublaslt_plan *plan) {
    const format_product *p = plan->product;
    int32_t batch = (int32_t)p->batch, turned = TRANSPOSED;
    const struct {
        uint32_t rows, columns, leading;
        int64_t stride;
    } matrices[] = {
        {p->transposed[1] ? p->depth : p->columns, p->transposed[1] ? p->columns : p->depth, p->leading[1],
         (int64_t)p->strides[1]},
        {p->transposed[0] ? p->rows : p->depth, p->transposed[0] ? p->depth : p->rows, p->leading[0],
         (int64_t)p->strides[0]},
        {p->columns, p->rows, p->columns, (int64_t)p->rows * p->columns},
    };
    int code = lt->DescCreate(&plan->operation, p->tf32 ? COMPUTE_TF32 : COMPUTE_F32, F32);
    if (code == 0 && p->transposed[1]) code = lt->DescSet(plan->operation, OPERATION_A, &turned, sizeof turned);
    if (code == 0 && p->transposed[0]) code = lt->DescSet(plan->operation, OPERATION_B, &turned, sizeof turned);
    for (int i = 0; i < 3 && code == 0; i++) {
        void **layout = &plan->layouts[i];
        code = lt->LayoutCreate(layout, F32, matrices[i].rows, matrices[i].columns, matrices[i].leading);
        if (code == 0) code = lt->LayoutSet(*layout, LAYOUT_BATCH, &batch, sizeof batch);
        if (code == 0) code = lt->LayoutSet(*layout, LAYOUT_STRIDE, &matrices[i].stride, sizeof matrices[i].stride);
    }
    return code;
}

static int describe_all(cublaslt *lt, const artifact *a) {
    while (lt->count < a->product_count) {
        const format_product *p = &a->products[lt->count];
        cublaslt_plan *plan = &lt->plans[lt->count++];
        plan->product = p;
        plan->done = (size_t)((uint64_t)p->batch * p->rows * p->columns * sizeof(float));
        plan->rest = (size_t)a->arguments[a->kernels[p->kernel].first_argument + p->result].bytes - plan->done;
        if (describe(lt, plan) != 0) return 0;
    }
    return 1;
}

/* Algorithms without a workspace and without sums in parts, likely ones first; returns how many. */
static int find_algorithms(cublaslt *lt, const cublaslt_plan *plan, heuristic *found) {
    uint32_t none = 0, alignment = EDGEC_ALIGNMENT;
    void *preference = NULL, *const *layouts = plan->layouts;
    int count = 0, code = lt->PreferenceCreate(&preference);
    if (code == 0) code = lt->PreferenceSet(preference, PREFER_REDUCTIONS, &none, sizeof none);
    for (int i = 0; i < ALIGNMENTS && code == 0; i++)
        code = lt->PreferenceSet(preference, PREFER_ALIGNMENTS + i, &alignment, sizeof alignment);
    if (code == 0)
        code = lt->Heuristic(lt->handle, plan->operation, layouts[0], layouts[1], layouts[2], layouts[2], preference,
                             CANDIDATES, found, &count);
    if (preference != NULL) lt->PreferenceDestroy(preference);
    return code == 0 ? count : 0;
}

static const void *at(uint64_t address) { return (const void *)(uintptr_t)address; }

int cublaslt_multiply(const cublaslt *lt, const cublaslt_plan *plan, const uint64_t *addresses, void *stream) {
    const format_product *p = plan->product;
    const float one = 1, zero = 0;
    void *const *layouts = plan->layouts, *result = (void *)(uintptr_t)addresses[p->result];
    return lt->Matmul(lt->handle, plan->operation, &one, at(addresses[p->factors[1]]), layouts[0],
                      at(addresses[p->factors[0]]), layouts[1], &zero, result, layouts[2], result, layouts[2],
                      plan->algorithm, NULL, 0, stream);
}

cublaslt_plan *cublaslt_find(const cublaslt *lt, uint32_t kernel) {
    for (uint32_t i = 0; i < lt->count; i++)
        if (lt->plans[i].chosen && lt->plans[i].product->kernel == kernel) return &lt->plans[i];
    return NULL;
}

/* ---- Measuring, through the driver, so that both sides are recorded and replayed as they will be. ---- */

/* Nanoseconds of REPEATS of it, one after another; UINT64_MAX if that cannot be done. */
static uint64_t duration(device *d, const device_work *work) {
    void *graph, *recording = NULL, *node = NULL;
    edgec_status status = d->driver->record(d, &graph);
    if (status != EDGEC_OK) return UINT64_MAX;
    for (int i = 0; i < REPEATS && status == EDGEC_OK; i++) {
        void *earlier = node;
        status = d->driver->add(d, graph, work, &earlier, i > 0, &node);
    }
    status = d->driver->recorded(d, graph, status, &recording);
    if (status != EDGEC_OK) return UINT64_MAX;
    uint64_t time = device_duration(d, recording);
    d->driver->forget(d, recording);
    return time;
}

static int wins(uint64_t library, uint64_t own, uint64_t percent) { return library < own / 100 * percent; }

/* Where a kernel is called: all buffers must be aligned as algorithms are asked for. NULL: nowhere. */
static const format_call *find_call(const artifact *a, uint32_t kernel) {
    const format_call *found = NULL;
    for (uint32_t i = 0; i < a->call_count; i++) {
        const format_call *c = &a->calls[i];
        if (c->opcode != OPCODE_KERNEL || c->kernel != kernel || c->tasks == 0) continue;
        for (uint32_t k = 0; k < c->operand_count; k++)
            if (a->buffers[a->operands[c->first_operand + k]].offset % EDGEC_ALIGNMENT != 0) return NULL;
        found = c;
    }
    return found;
}

/* The work of a product's kernel on memory that nobody needs, its arguments one behind another; no groups if it is not
 * to be replaced. Returns where the arguments end. */
static uint64_t place(const artifact *a, uint32_t product, uint64_t memory, device_operand operands[3], device_work *work) {
    uint32_t kernel = a->products[product].kernel;
    const format_kernel *k = &a->kernels[kernel];
    const format_call *call = find_call(a, kernel);
    uint64_t end = 0;
    for (uint32_t i = 0; i < 3; i++) {
        operands[i] = (device_operand){memory, end};
        end += (a->arguments[k->first_argument + i].bytes + EDGEC_ALIGNMENT - 1) / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT;
    }
    *work = (device_work){kernel, call != NULL ? (uint32_t)call->tasks : 0, k->threads, 3, operands, 0};
    return end;
}

/* The fastest algorithm, if it wins. Each is done once before it is recorded: nothing is loaded in between then. */
static void measure(cublaslt *lt, device *d, cublaslt_plan *plan, const device_work *work) {
    heuristic found[CANDIDATES];
    int count = find_algorithms(lt, plan, found), best = -1;
    if (count == 0) return;
    uint64_t own = duration(d, work), least = UINT64_MAX;
    for (int i = 0; i < count; i++) {
        if (found[i].state != 0 || found[i].workspace != 0) continue;
        memcpy(plan->algorithm, found[i].algorithm, sizeof plan->algorithm);
        plan->chosen = 1;
        uint64_t time = UINT64_MAX;
        if (d->driver->perform(d, work) == EDGEC_OK && d->driver->finish(d) == EDGEC_OK) time = duration(d, work);
        plan->chosen = 0;
        if (time < least) least = time, best = i;
    }
    /* Twice, lest something else ran. */
    if (best < 0 || !wins(least, own, ALONE) || !wins(least, duration(d, work), ALONE)) return;
    memcpy(plan->algorithm, found[best].algorithm, sizeof plan->algorithm);
    plan->chosen = 1;
}

/* ---- Choosing. ---- */

static program_identity identify(const artifact *a, const char *name, int driver, size_t library) {
    char versions[64];
    const char *const words[] = {name, versions};
    snprintf(versions, sizeof versions, "driver %d, cublasLt %zu", driver, library);
    program_identity identity = program_identify(words, 2, a->code, a->code_bytes);
    identity.hash ^= program_identify(NULL, 0, a->products, a->product_count * sizeof *a->products).hash;
    return identity;
}

static int recall(cublaslt *lt, const device *d, const artifact *a, const program_identity *identity) {
    platform_file file;
    const uint8_t *kept;
    size_t bytes;
    choice one;
    if (program_cache_find(d->cache, choices, identity, &file, &kept, &bytes) != EDGEC_OK) return 0;
    int whole = bytes == a->product_count * sizeof one;
    for (uint32_t i = 0; i < a->product_count && whole; i++) {
        memcpy(&one, kept + i * sizeof one, sizeof one);
        lt->plans[i].chosen = one.chosen == 1 && find_call(a, a->products[i].kernel) != NULL;
        memcpy(lt->plans[i].algorithm, one.algorithm, sizeof one.algorithm);
    }
    platform_file_unmap(&file);
    return whole;
}

static int keep(const cublaslt *lt, const device *d, const artifact *a, const program_identity *identity) {
    size_t bytes = a->product_count * sizeof(choice);
    choice *all = d->allocator->allocate(d->allocator->context, bytes, EDGEC_ALIGNMENT);
    if (all == NULL) return 0;
    memset(all, 0, bytes);
    for (uint32_t i = 0; i < a->product_count; i++) {
        all[i].chosen = lt->plans[i].chosen != 0;
        if (lt->plans[i].chosen) memcpy(all[i].algorithm, lt->plans[i].algorithm, sizeof all[i].algorithm);
    }
    edgec_status status = program_cache_keep(d->cache, choices, identity, all, bytes);
    d->allocator->release(d->allocator->context, all, bytes);
    return status == EDGEC_OK;
}

/* Amid all others a product may be slower than alone: what does not gain all programs something is not chosen. */
static void try_programs(cublaslt *lt, uint64_t (*programs)(void *context), void *context) {
    uint32_t count = lt->count;
    uint64_t least[2] = {UINT64_MAX, UINT64_MAX}; /* without it, and with it */
    for (int turn = 0; turn < 2 * TURNS; turn++) {
        lt->count = turn % 2 ? count : 0;
        uint64_t time = programs(context);
        if (time < least[turn % 2]) least[turn % 2] = time;
    }
    for (uint32_t i = 0; i < count && !wins(least[1], least[0], TOGETHER); i++) lt->plans[i].chosen = 0;
}

/* Every algorithm that was recalled is done once, before anything is recorded. One that fails is let go of. */
static void try_recalled(cublaslt *lt, device *d, const artifact *a, uint64_t memory) {
    device_operand operands[3];
    device_work work;
    for (uint32_t i = 0; i < lt->count; i++) {
        place(a, i, memory, operands, &work);
        if (lt->plans[i].chosen && work.groups > 0) (void)d->driver->perform(d, &work);
    }
    (void)d->driver->finish(d);
}

static void measure_all(cublaslt *lt, device *d, const artifact *a, uint64_t memory) {
    device_operand operands[3];
    device_work work;
    for (uint32_t i = 0; i < lt->count; i++) {
        place(a, i, memory, operands, &work);
        if (work.groups > 0) measure(lt, d, &lt->plans[i], &work);
    }
}

static int any_chosen(const cublaslt *lt) {
    for (uint32_t i = 0; i < lt->count; i++)
        if (lt->plans[i].chosen) return 1;
    return 0;
}

void cublaslt_open(cublaslt *lt, device *d, const artifact *a, const char *name, int driver,
                   uint64_t (*programs)(void *context), void *context) {
    uint64_t bytes = 0, memory = 0;
    int opened = load(lt, "libcublasLt.so.13") || load(lt, "libcublasLt.so.12") || load(lt, "libcublasLt.so.11");
    if (!opened) return;
    for (uint32_t i = 0; i < a->product_count; i++) {
        device_operand operands[3];
        device_work work;
        uint64_t end = place(a, i, 0, operands, &work);
        if (end > bytes) bytes = end;
    }
    int ready = describe_all(lt, a) && d->driver->allocate(d, (size_t)bytes, &memory) == EDGEC_OK;
    if (ready) {
        program_identity identity = identify(a, name, driver, lt->GetVersion());
        int recalled = recall(lt, d, a, &identity);
        if (recalled)
            try_recalled(lt, d, a, memory);
        else
            measure_all(lt, d, a, memory);
        d->driver->release(d, memory);
        if (!recalled && any_chosen(lt)) try_programs(lt, programs, context);
        ready = recalled || keep(lt, d, a, &identity); /* or another process would choose otherwise */
    }
    if (!ready || !any_chosen(lt)) cublaslt_close(lt);
}

void cublaslt_close(cublaslt *lt) {
    for (cublaslt_plan *plan = lt->plans; lt->handle != NULL && plan < lt->plans + lt->count; plan++) {
        for (int k = 0; k < 3; k++)
            if (plan->layouts[k] != NULL) lt->LayoutDestroy(plan->layouts[k]);
        if (plan->operation != NULL) lt->DescDestroy(plan->operation);
    }
    if (lt->handle != NULL) lt->Destroy(lt->handle);
    lt->handle = NULL;
    lt->count = 0;
}

#endif
