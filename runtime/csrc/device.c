/* What all drivers have in common: a model's regions on a device, a session's arena, and running a program there.
 *
 * The model's PARAM and STATE on the host stay as a copy for reading, writing and checkpoints: current unless
 * `device_newer`. All its tensors lie there, so that a device never reads the file's mapping. */
#include "device.h"

#if EDGEC_DEVICES

#include <string.h>

static const device_driver *driver_of(uint8_t arch) { return arch == ARCH_CUDA ? &cuda_driver : &opencl_driver; }

edgec_status device_probe(const format_variant *variant) { return driver_of(variant->arch)->probe(variant); }

/* ---- Models. ---- */

static edgec_status allocate_region(device *d, const void *data, uint64_t bytes, uint64_t *memory) {
    if (bytes == 0) return EDGEC_OK;
    edgec_status status = d->driver->allocate(d, (size_t)bytes, memory);
    return status == EDGEC_OK ? d->driver->write(d, (device_operand){*memory, 0}, data, (size_t)bytes) : status;
}

static uint64_t time_programs(void *context);

/* Programs that were tried have changed what they train: it is as the host has it again. */
static edgec_status choose_libraries(edgec_model *model) {
    const format_variant *v = model->artifact.variant;
    device *d = model->device;
    d->driver->choose_libraries(d, &model->artifact, time_programs, model);
    if (!model->device_newer) return EDGEC_OK;
    model->device_newer = 0;
    edgec_status status = device_push(model, REGION_PARAM, 0, (size_t)v->param_bytes);
    return status == EDGEC_OK ? device_push(model, REGION_STATE, 0, (size_t)v->state_bytes) : status;
}

edgec_status device_open(edgec_model *model, const edgec_options *options) {
    const artifact *a = &model->artifact;
    const device_driver *driver = driver_of(a->variant->arch);
    size_t total = driver->bytes(a);
    device *d = model->allocator.allocate(model->allocator.context, total, EDGEC_ALIGNMENT);
    if (d == NULL) return EDGEC_OUT_OF_MEMORY;
    memset(d, 0, total);
    *d = (device){driver, total, &model->allocator, options->cache};
    model->device = d;

    uint64_t needed = a->variant->param_bytes + a->variant->state_bytes + model->arena_bytes, free_bytes = 0;
    edgec_status status = driver->open(d, a);
    if (status == EDGEC_OK) {
        free_bytes = driver->free_bytes(d);
        if (free_bytes < needed) status = EDGEC_DEVICE_MEMORY;
    }
    if (status == EDGEC_OK) status = allocate_region(d, model->param, a->variant->param_bytes, &model->device_param);
    if (status == EDGEC_OK) status = allocate_region(d, model->state, a->variant->state_bytes, &model->device_state);
    if (status == EDGEC_OK) status = driver->finish(d);
    if (status == EDGEC_OK && (options->libraries & EDGEC_CUBLASLT) && driver->choose_libraries != NULL)
        status = choose_libraries(model);
    if (status == EDGEC_DEVICE_MEMORY && options->shortage != NULL)
        *options->shortage = (edgec_shortage){needed, free_bytes};
    if (status != EDGEC_OK) device_close(model);
    return status;
}

void device_close(edgec_model *model) {
    device *d = model->device;
    if (d == NULL) return;
    if (model->device_param != 0) d->driver->release(d, model->device_param);
    if (model->device_state != 0) d->driver->release(d, model->device_state);
    d->driver->close(d);
    model->allocator.release(model->allocator.context, d, d->allocation);
    model->device = NULL;
}

const char *device_kernel_name(const edgec_model *model, uint32_t kernel) {
    device *d = model->device;
    const char *library = d != NULL && d->driver->library != NULL ? d->driver->library(d, kernel) : NULL;
    return library != NULL ? library : artifact_string(&model->artifact, model->artifact.kernels[kernel].name);
}

edgec_status device_fetch(edgec_model *model) {
    device *d = model->device;
    const format_variant *v = model->artifact.variant;
    edgec_status status = EDGEC_OK;
    if (d == NULL || !model->device_newer) return EDGEC_OK;
    if (v->param_bytes > 0)
        status = d->driver->read(d, (device_operand){model->device_param, 0}, model->param, (size_t)v->param_bytes);
    if (status == EDGEC_OK && v->state_bytes > 0)
        status = d->driver->read(d, (device_operand){model->device_state, 0}, model->state, (size_t)v->state_bytes);
    if (status == EDGEC_OK) status = d->driver->finish(d);
    if (status == EDGEC_OK) model->device_newer = 0;
    return status;
}

edgec_status device_push(edgec_model *model, uint8_t region, uint64_t offset, size_t bytes) {
    device *d = model->device;
    if (d == NULL || bytes == 0) return EDGEC_OK;
    int state = region == REGION_STATE;
    device_operand to = {state ? model->device_state : model->device_param, offset};
    edgec_status status = d->driver->write(d, to, (state ? model->state : model->param) + offset, bytes);
    return status == EDGEC_OK ? d->driver->finish(d) : status;
}

/* ---- Sessions. ---- */

edgec_status device_session_open(edgec_model *model, device_session *session) {
    device *d = model->device;
    edgec_status status = EDGEC_OK;
    if (model->arena_bytes > 0) status = d->driver->allocate(d, model->arena_bytes, &session->arena);
    if (status == EDGEC_OK && d->driver->pin != NULL && session->host_bytes > 0)
        d->driver->pin(d, session->host, session->host_bytes);
    return status;
}

void device_session_close(edgec_model *model, device_session *session) {
    device *d = model->device;
    for (uint32_t i = 0; i < model->artifact.call_count; i++)
        if (session->recordings[i] != NULL) d->driver->forget(d, session->recordings[i]);
    if (d->driver->pin != NULL && session->host_bytes > 0) d->driver->unpin(d, session->host);
    if (session->arena != 0) d->driver->release(d, session->arena);
}

/* ---- Running. ---- */

typedef struct device_run_state {
    edgec_model *model;
    device_session *session;
    device *d;
    const artifact *a;
} running;

static device_operand locate(const running *r, uint32_t buffer) {
    const format_buffer *b = &r->a->buffers[buffer];
    uint64_t memory = r->session->arena;
    if (b->region == REGION_PARAM) memory = r->model->device_param;
    if (b->region == REGION_STATE) memory = r->model->device_state;
    return (device_operand){memory, b->offset};
}

static int is_guard(const format_call *c) {
    return c->opcode == OPCODE_GUARD || c->opcode == OPCODE_GUARD_GRADIENTS;
}

/* What a call that is no guard does; its operands go to `operands`. */
static device_work work_of(const running *r, const format_call *c, device_operand *operands) {
    for (uint32_t i = 0; i < c->operand_count; i++)
        operands[i] = locate(r, r->a->operands[c->first_operand + i]);
    device_work work = {.count = c->operand_count, .operands = operands};
    if (c->opcode == OPCODE_ZERO) {
        work.zeros = (size_t)r->a->buffers[r->a->operands[c->first_operand]].bytes;
    } else {
        work.kernel = c->kernel;
        work.groups = (uint32_t)c->tasks;
        work.threads = r->a->kernels[c->kernel].threads;
    }
    return work;
}

static int is_nothing(const device_work *work) { return work->groups == 0 && work->zeros == 0; }

/* With `ns` it is timed. */
static edgec_status do_call(const running *r, const format_call *c, uint64_t *ns) {
    device_operand operands[EDGEC_MAX_DEVICE_ARGUMENTS];
    device_work work = work_of(r, c, operands);
    if (is_nothing(&work)) return EDGEC_OK;
    return ns != NULL ? r->d->driver->timed(r->d, &work, ns) : r->d->driver->perform(r->d, &work);
}

/* `copies`: NULL, or by buffer where what is watched may already lie on the host. */
static edgec_status check_guard(const running *r, const format_call *c, void *const *copies) {
    uint32_t watched = r->a->operands[c->first_operand], bits = 0;
    edgec_status status = EDGEC_OK;
    if (copies != NULL && copies[watched] != NULL) {
        memcpy(&bits, copies[watched], sizeof bits);
    } else {
        status = r->d->driver->read(r->d, locate(r, watched), &bits, sizeof bits);
        if (status == EDGEC_OK) status = r->d->driver->finish(r->d);
    }
    if (status != EDGEC_OK || (bits & 0x7F800000u) != 0x7F800000u) return status;
    return c->opcode == OPCODE_GUARD ? EDGEC_LOSS_NOT_FINITE : EDGEC_GRADIENT_NOT_FINITE;
}

/* ---- Recordings: a call waits for those before it that touch the same memory, if one of the two writes. ---- */

static int writes(const artifact *a, const format_call *c, uint32_t operand) {
    if (c->opcode == OPCODE_ZERO) return 1;
    return (a->arguments[a->kernels[c->kernel].first_argument + operand].access & ACCESS_WRITE) != 0;
}

static int must_wait(const artifact *a, const format_call *later, const format_call *earlier) {
    for (uint32_t i = 0; i < later->operand_count; i++) {
        const format_buffer *x = &a->buffers[a->operands[later->first_operand + i]];
        for (uint32_t j = 0; j < earlier->operand_count; j++) {
            const format_buffer *y = &a->buffers[a->operands[earlier->first_operand + j]];
            if (x->region == y->region && x->offset < y->offset + y->bytes && y->offset < x->offset + x->bytes &&
                (writes(a, later, i) || writes(a, earlier, j)))
                return 1;
        }
    }
    return 0;
}

/* For each call a row of bits: the calls that are done before it. Of those it must wait for, it names only what no other
 * that it names waits for. */
static edgec_status add_calls(const running *r, uint32_t first, uint32_t count, void *graph) {
    void **nodes = r->session->notes, **earlier = nodes + count;
    uint32_t *rows = (uint32_t *)(void *)(earlier + count), words = (count + 31) / 32;
    edgec_status status = EDGEC_OK;
    memset(rows, 0, (size_t)count * words * sizeof *rows);
    for (uint32_t i = 0; i < count && status == EDGEC_OK; i++) {
        const format_call *call = &r->a->calls[first + i];
        device_operand operands[EDGEC_MAX_DEVICE_ARGUMENTS];
        device_work work = work_of(r, call, operands);
        uint32_t *row = rows + (size_t)i * words, waits = 0;
        nodes[i] = NULL;
        if (is_nothing(&work)) continue;
        for (uint32_t j = i; j-- > 0;) {
            if (nodes[j] == NULL || (row[j / 32] >> (j % 32) & 1u) || !must_wait(r->a, call, call - (i - j))) continue;
            earlier[waits++] = nodes[j];
            row[j / 32] |= 1u << (j % 32);
            for (uint32_t k = 0; k < words; k++) row[k] |= rows[(size_t)j * words + k];
        }
        status = r->d->driver->add(r->d, graph, &work, earlier, waits, &nodes[i]);
    }
    return status;
}

static edgec_status record_calls(const running *r, uint32_t first, uint32_t last, void **recording) {
    void *graph = NULL;
    edgec_status status = r->d->driver->record(r->d, &graph);
    if (status != EDGEC_OK) return status;
    return r->d->driver->recorded(r->d, graph, add_calls(r, first, last - first, graph), recording);
}

/* Calls `first` to `last` - 1, none of which is a guard: recorded the first time, replayed from then on. */
static edgec_status run_segment(const running *r, uint32_t first, uint32_t last) {
    const device_driver *driver = r->d->driver;
    void **recording = &r->session->recordings[first];
    edgec_status status = EDGEC_OK;
    if (*recording != NULL) return driver->replay(r->d, *recording);
    if (driver->record == NULL) {
        for (uint32_t i = first; i < last && status == EDGEC_OK; i++) status = do_call(r, &r->a->calls[i], NULL);
        return status;
    }
    status = record_calls(r, first, last, recording);
    return status == EDGEC_OK ? driver->replay(r->d, *recording) : status;
}

/* Where calls that are recorded together end. */
static uint32_t segment_end(const artifact *a, uint32_t first, uint32_t end) {
    uint32_t last = first;
    while (last < end && last - first < DEVICE_RECORDED && !is_guard(&a->calls[last])) last++;
    return last;
}

static edgec_status run_calls(const running *r, uint32_t first, uint32_t end) {
    edgec_status status = EDGEC_OK;
    while (first < end && status == EDGEC_OK) {
        uint32_t last = segment_end(r->a, first, end);
        if (last > first) status = run_segment(r, first, last);
        if (last < end && is_guard(&r->a->calls[last]) && status == EDGEC_OK)
            status = check_guard(r, &r->a->calls[last++], NULL);
        first = last;
    }
    return status;
}

/* ---- Timing. ---- */

uint64_t device_duration(device *d, void *recording) {
    enum { ROUNDS = 9 };
    uint64_t times[ROUNDS];
    for (int round = -1; round < ROUNDS; round++) { /* the first is not counted */
        uint64_t start = platform_nanoseconds();
        if (d->driver->replay(d, recording) != EDGEC_OK || d->driver->finish(d) != EDGEC_OK) return UINT64_MAX;
        uint64_t time = platform_nanoseconds() - start;
        int place = round;
        if (round < 0) continue;
        for (; place > 0 && times[place - 1] > time; place--) times[place] = times[place - 1];
        times[place] = time;
    }
    return times[ROUNDS / 2];
}

/* Of all calls in an arena of zeros; guards let everything pass. */
static uint64_t time_calls(const running *r) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < r->a->program_count; i++) {
        const format_program *p = &r->a->programs[i];
        for (uint32_t last, first = p->first_call, end = first + p->call_count; first < end; first = last) {
            void *recording = NULL;
            last = segment_end(r->a, first, end);
            if (last == first) {
                last++;
                continue;
            }
            if (record_calls(r, first, last, &recording) != EDGEC_OK) return UINT64_MAX;
            uint64_t time = device_duration(r->d, recording);
            r->d->driver->forget(r->d, recording);
            if (time == UINT64_MAX) return time;
            total += time;
        }
    }
    return total;
}

static uint64_t time_programs(void *context) {
    edgec_model *model = context;
    const edgec_allocator *allocator = &model->allocator;
    device_session session = {0};
    running r = {model, &session, model->device, &model->artifact};
    size_t notes = device_notes_bytes(r.a);
    uint64_t total = UINT64_MAX;
    session.notes = allocator->allocate(allocator->context, notes, EDGEC_ALIGNMENT);
    if (session.notes == NULL) return total;
    model->device_newer = 1;
    if (model->arena_bytes == 0 || r.d->driver->allocate(r.d, model->arena_bytes, &session.arena) == EDGEC_OK)
        total = time_calls(&r);
    if (session.arena != 0) r.d->driver->release(r.d, session.arena);
    allocator->release(allocator->context, session.notes, notes);
    return total;
}

static edgec_status run_observed(const running *r, const format_program *p, device_observer observer, void *context) {
    edgec_status status = r->d->driver->finish(r->d);
    for (uint32_t i = 0; i < p->call_count && status == EDGEC_OK; i++) {
        const format_call *c = &r->a->calls[p->first_call + i];
        uint64_t start = platform_nanoseconds(), ns = 0;
        status = is_guard(c) ? check_guard(r, c, NULL) : do_call(r, c, &ns);
        observer(context, i, start, ns != 0 ? ns : platform_nanoseconds() - start);
    }
    return status;
}

/* Every binding of the program that is filled (or not) by the application, between its place and the device. */
static edgec_status copy_bindings(const running *r, const format_program *p, void *const *addresses, int filled) {
    edgec_status status = EDGEC_OK;
    for (uint32_t i = 0; i < p->binding_count && status == EDGEC_OK; i++) {
        const format_binding *b = &r->a->bindings[p->first_binding + i];
        size_t bytes = (size_t)r->a->buffers[b->buffer].bytes;
        if ((b->slot == EDGEC_SLOT_INPUT || b->slot == EDGEC_SLOT_SCALAR) != filled || bytes == 0) continue;
        device_operand place = locate(r, b->buffer);
        status = filled ? r->d->driver->write(r->d, place, addresses[b->buffer], bytes)
                        : r->d->driver->read(r->d, place, addresses[b->buffer], bytes);
    }
    return status;
}

edgec_status device_run(edgec_model *model, device_session *session, void *const *addresses, uint32_t program,
                        device_observer observer, void *context) {
    running r = {model, session, model->device, &model->artifact};
    const format_program *p = &r.a->programs[program];
    uint32_t all = p->first_call + p->call_count, end = all;
    while (end > p->first_call && is_guard(&r.a->calls[end - 1])) end--; /* these only report: when all is copied */
    edgec_status status = copy_bindings(&r, p, addresses, 1), copied = EDGEC_OK;
    if (status == EDGEC_OK) {
        if (model->updates[program]) model->device_newer = 1;
        status = observer != NULL ? run_observed(&r, p, observer, context) : run_calls(&r, p->first_call, end);
    }
    if (status == EDGEC_OK || status == EDGEC_LOSS_NOT_FINITE || status == EDGEC_GRADIENT_NOT_FINITE)
        copied = copy_bindings(&r, p, addresses, 0);
    edgec_status finished = r.d->driver->finish(r.d); /* also of what failed: copies are between places of the session */
    if (status == EDGEC_OK) status = copied != EDGEC_OK ? copied : finished;
    for (uint32_t i = end; i < all && status == EDGEC_OK; i++) status = check_guard(&r, &r.a->calls[i], addresses);
    return status;
}

#endif
