/* A session: one arena, the addresses of all buffers, perhaps a pool; and running a program. */
#include <string.h>

#include "device.h"
#include "edgec_memory.h"
#include "invoke.h"
#include "pool.h"

enum { MAX_THREADS = 1024 };

struct edgec_session {
    edgec_model *model;
    size_t allocation; /* bytes of this block, which everything below is part of */
    void **addresses;  /* of buffers, by index */
    uint8_t *arena;    /* of a device: what is filled and read of it */
    pool *pool; /* NULL for one thread */
    device_session *device; /* NULL: kernels run here */
    edgec_failure failure;
    edgec_profile_callback profile;
    void *profile_context;
};

_Static_assert(sizeof(struct edgec_session) <= EDGEC_SESSION_FIELDS, "raise EDGEC_SESSION_FIELDS");

/* ---- Opening. ---- */

static void resolve_addresses(edgec_session *session) {
    const edgec_model *model = session->model;
    const artifact *a = &model->artifact;
    for (uint32_t i = 0; i < a->buffer_count; i++) {
        const format_buffer *b = &a->buffers[i];
        const uint8_t *base = session->arena;
        if (b->region == REGION_PARAM) base = model->param;
        if (b->region == REGION_STATE) base = model->state;
        if (b->region == REGION_WEIGHTS) base = a->weights + a->tensors[b->tensor].offset;
        /* An unused buffer may lie outside every arena: its address is a number that nobody follows. */
        session->addresses[i] = (void *)((uintptr_t)base + (uintptr_t)b->offset);
    }
}

static void run_range(void *context, const void *job, int32_t lo, int32_t hi) {
    const edgec_session *session = context;
    const edgec_model *model = session->model;
    const artifact *a = &model->artifact;
    const format_call *call = job;
    const format_kernel *kernel = &a->kernels[call->kernel];
    void *pointers[EDGEC_MAX_ARGUMENTS];
    for (uint32_t i = 0; i < call->operand_count; i++)
        pointers[i] = session->addresses[a->operands[call->first_operand + i]];
    void (*function)(void) = a->code != NULL ? (void (*)(void))((uintptr_t)model->code.base + (uintptr_t)kernel->entry)
                                             : model->linked[kernel->entry].function;
    invoke_kernel(function, pointers, call->operand_count, lo, hi);
}

/* Gives every buffer that is a binding a place of its own behind `base`; returns how many bytes that takes. Without
 * `addresses` it only counts, and what is bound twice is counted twice. */
static size_t place_bindings(const artifact *a, uint8_t *base, void **addresses) {
    size_t end = 0;
    for (uint32_t i = 0; i < a->binding_count; i++) {
        uint32_t buffer = a->bindings[i].buffer;
        if (addresses != NULL && addresses[buffer] != NULL) continue;
        if (addresses != NULL) addresses[buffer] = base + end;
        end += EDGEC_LINES(a->buffers[buffer].bytes);
    }
    return end;
}

/* One block: the session, addresses, recordings by call, notes for them, and what the application fills and reads. */
static edgec_status open_on_device(edgec_model *model, edgec_session **session) {
    const artifact *a = &model->artifact;
    size_t device = EDGEC_SESSION_FIELDS + EDGEC_LINES(a->buffer_count * sizeof(void *));
    size_t recordings = device + EDGEC_LINES(sizeof(device_session));
    size_t notes = recordings + EDGEC_LINES(a->call_count * sizeof(void *));
    size_t bindings = notes + EDGEC_LINES(device_notes_bytes(a));
    size_t total = bindings + place_bindings(a, NULL, NULL);
    uint8_t *block = model->allocator.allocate(model->allocator.context, total, EDGEC_ALIGNMENT);
    if (block == NULL) return EDGEC_OUT_OF_MEMORY;
    memset(block, 0, total);
    edgec_session *s = (edgec_session *)(void *)block;
    s->model = model;
    s->allocation = total;
    s->addresses = (void **)(void *)(block + EDGEC_SESSION_FIELDS);
    s->device = (device_session *)(void *)(block + device);
    s->device->recordings = (void **)(void *)(block + recordings);
    s->device->notes = block + notes;
    s->arena = block + bindings;
    s->device->host = s->arena;
    s->device->host_bytes = total - bindings;
    place_bindings(a, s->arena, s->addresses);
    platform_lock_write(&model->lock);
    edgec_status status = device_session_open(model, s->device);
    platform_lock_release(&model->lock);
    if (status != EDGEC_OK) {
        model->allocator.release(model->allocator.context, block, total);
        return status;
    }
    *session = s;
    return EDGEC_OK;
}

edgec_status edgec_session_open(edgec_model *model, uint32_t threads, edgec_session **session) {
    const artifact *a = &model->artifact;
    if (model->device != NULL) return open_on_device(model, session);
    if (threads == 0) threads = platform_cpu_count();
    if (threads > MAX_THREADS) return EDGEC_INVALID_ARGUMENT;
    size_t shared = threads > 1 ? EDGEC_LINES(pool_bytes(threads - 1)) : 0;
    size_t total = shared + EDGEC_SESSION_BYTES(model->arena_bytes, a->buffer_count);
    size_t workers = EDGEC_SESSION_FIELDS;
    size_t addresses = workers + shared;
    size_t arena = total - EDGEC_LINES(model->arena_bytes);
    uint8_t *block = model->allocator.allocate(model->allocator.context, total, EDGEC_ALIGNMENT);
    if (block == NULL) return EDGEC_OUT_OF_MEMORY;

    memset(block, 0, total); /* the arena too: what nobody wrote is the same in every session */
    edgec_session *s = (edgec_session *)(void *)block;
    s->model = model;
    s->allocation = total;
    s->addresses = (void **)(void *)(block + addresses);
    s->arena = block + arena;
    resolve_addresses(s);
    if (threads > 1) {
        pool *p = (pool *)(void *)(block + workers);
        edgec_status status = pool_open(p, threads - 1, run_range, s);
        if (status != EDGEC_OK) {
            model->allocator.release(model->allocator.context, block, total);
            return status;
        }
        s->pool = p;
    }
    *session = s;
    return EDGEC_OK;
}

void edgec_session_close(edgec_session *session) {
    if (session == NULL) return;
    edgec_allocator *allocator = &session->model->allocator;
    if (session->pool != NULL) pool_close(session->pool);
    if (session->device != NULL) {
        platform_lock_write(&session->model->lock);
        device_session_close(session->model, session->device);
        platform_lock_release(&session->model->lock);
    }
    allocator->release(allocator->context, session, session->allocation);
}

/* ---- Inputs and outputs. ---- */

edgec_status edgec_binding_data(edgec_session *session, uint32_t program, uint32_t binding, void **data) {
    const artifact *a = &session->model->artifact;
    if (program >= a->program_count) return EDGEC_NO_SUCH_PROGRAM;
    if (binding >= a->programs[program].binding_count) return EDGEC_NO_SUCH_TENSOR;
    *data = session->addresses[a->bindings[a->programs[program].first_binding + binding].buffer];
    return EDGEC_OK;
}

static edgec_status locate(edgec_session *session, uint32_t program, const char *name, size_t bytes, int input,
                           void **data) {
    edgec_binding_info info;
    uint32_t binding;
    edgec_status status = edgec_binding_find(session->model, program, name, &binding);
    if (status == EDGEC_OK) status = edgec_binding_get(session->model, program, binding, &info);
    if (status != EDGEC_OK) return status;
    if (input != (info.slot == EDGEC_SLOT_INPUT || info.slot == EDGEC_SLOT_SCALAR)) return EDGEC_NO_SUCH_TENSOR;
    if (bytes != info.bytes) return EDGEC_WRONG_SIZE;
    return edgec_binding_data(session, program, binding, data);
}

edgec_status edgec_input(edgec_session *session, uint32_t program, const char *name, const void *data, size_t bytes) {
    void *target;
    edgec_status status = locate(session, program, name, bytes, 1, &target);
    if (status == EDGEC_OK && bytes > 0) memcpy(target, data, bytes);
    return status;
}

edgec_status edgec_output(edgec_session *session, uint32_t program, const char *name, void *data, size_t bytes) {
    void *source;
    edgec_status status = locate(session, program, name, bytes, 0, &source);
    if (status == EDGEC_OK && bytes > 0) memcpy(data, source, bytes);
    return status;
}

/* ---- Running. ---- */

static int64_t load_integer(const void *data, uint64_t index, uint8_t dtype) {
    switch (dtype) {
        case EDGEC_I8: return ((const int8_t *)data)[index];
        case EDGEC_U8: return ((const uint8_t *)data)[index];
        case EDGEC_I32: return ((const int32_t *)data)[index];
        default: return ((const int64_t *)data)[index];
    }
}

static edgec_status check_ranges(edgec_session *session, uint32_t program) {
    const artifact *a = &session->model->artifact;
    const format_program *p = &a->programs[program];
    for (uint32_t i = 0; i < p->binding_count; i++) {
        const format_binding *b = &a->bindings[p->first_binding + i];
        if (b->high < b->low) continue;
        uint64_t elements = 1;
        for (uint32_t axis = 0; axis < b->rank; axis++) elements *= b->shape[axis];
        int64_t below = INT64_MAX;
        if (b->limit > 0) {
            const format_binding *limit = &a->bindings[p->first_binding + b->limit - 1];
            below = load_integer(session->addresses[limit->buffer], 0, limit->dtype);
        }
        for (uint64_t k = 0; k < elements; k++) {
            int64_t value = load_integer(session->addresses[b->buffer], k, b->dtype);
            if (value == b->ignored && value != b->low) continue;
            if (value >= b->low && value <= b->high && (b->limit == 0 || value < below)) continue;
            session->failure = (edgec_failure){i, k, value};
            return EDGEC_LABEL_OUT_OF_RANGE;
        }
    }
    return EDGEC_OK;
}

/* By bits, so that no compiler flag can reason it away. */
static int is_finite(const void *f32) {
    uint32_t bits;
    memcpy(&bits, f32, sizeof bits);
    return (bits & 0x7F800000u) != 0x7F800000u;
}

static edgec_status run_call(edgec_session *session, const format_call *call) {
    const artifact *a = &session->model->artifact;
    uint32_t first = call->operand_count > 0 ? a->operands[call->first_operand] : 0;
    switch (call->opcode) {
        case OPCODE_GUARD: return is_finite(session->addresses[first]) ? EDGEC_OK : EDGEC_LOSS_NOT_FINITE;
        case OPCODE_GUARD_GRADIENTS:
            return is_finite(session->addresses[first]) ? EDGEC_OK : EDGEC_GRADIENT_NOT_FINITE;
        case OPCODE_ZERO: memset(session->addresses[first], 0, (size_t)a->buffers[first].bytes); return EDGEC_OK;
        default:
            if (session->pool != NULL && call->tasks > 1)
                pool_run(session->pool, call, call->tasks);
            else if (call->tasks > 0)
                run_range(session, call, 0, call->tasks);
            return EDGEC_OK;
    }
}

typedef struct observation {
    edgec_session *session;
    uint32_t program;
    uint64_t began;
} observation;

static void tell(void *context, uint32_t index, uint64_t start, uint64_t ns) {
    const observation *o = context;
    const edgec_session *session = o->session;
    const artifact *a = &session->model->artifact;
    const format_call *call = &a->calls[a->programs[o->program].first_call + index];
    edgec_profile_event event = {
        .program = o->program,
        .call = index,
        .kernel = call->opcode == OPCODE_ZERO ? "zero" : "guard",
        .label = artifact_string(a, call->label),
        .start_ns = start - o->began,
        .ns = ns,
        .macs = call->macs,
        .tasks = (uint32_t)call->tasks,
    };
    if (call->opcode == OPCODE_KERNEL) event.kernel = device_kernel_name(session->model, call->kernel);
    session->profile(session->profile_context, &event);
}

static edgec_status run_here(edgec_session *session, const format_program *p, observation *observed) {
    const artifact *a = &session->model->artifact;
    edgec_status status = EDGEC_OK;
    for (uint32_t i = 0; i < p->call_count && status == EDGEC_OK; i++) {
        uint64_t start = observed != NULL ? platform_nanoseconds() : 0;
        status = run_call(session, &a->calls[p->first_call + i]);
        if (observed != NULL) tell(observed, i, start, platform_nanoseconds() - start);
    }
    return status;
}

edgec_status edgec_run(edgec_session *session, uint32_t program) {
    edgec_model *model = session->model;
    const artifact *a = &model->artifact;
    if (program >= a->program_count) return EDGEC_NO_SUCH_PROGRAM;
    edgec_status status = check_ranges(session, program);
    if (status != EDGEC_OK) return status;

    const format_program *p = &a->programs[program];
    observation observed = {session, program, session->profile != NULL ? platform_nanoseconds() : 0};
    int profiled = session->profile != NULL;
    if (model->updates[program] || session->device != NULL) /* a device takes one program at a time */
        platform_lock_write(&model->lock);
    else
        platform_lock_read(&model->lock);
    if (session->device != NULL)
        status = device_run(model, session->device, session->addresses, program, profiled ? tell : NULL, &observed);
    else
        status = run_here(session, p, profiled ? &observed : NULL);
    platform_lock_release(&model->lock);
    return status;
}

void edgec_failure_get(const edgec_session *session, edgec_failure *failure) { *failure = session->failure; }

void edgec_session_profile(edgec_session *session, edgec_profile_callback callback, void *context) {
    session->profile = callback;
    session->profile_context = context;
}
