#include "readers.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "model.h"

static volatile uint8_t sink;

static void touch(const void *data, size_t bytes) {
    const uint8_t *p = data;
    for (size_t i = 0; i < bytes; i++) sink ^= p[i];
}

static void touch_text(const char *text) { touch(text, strlen(text) + 1); }

static void *copy_exactly(const uint8_t *data, size_t bytes) {
    void *copy = NULL;
    if (posix_memalign(&copy, EDGEC_ALIGNMENT, bytes) != 0) abort();
    if (bytes > 0) memcpy(copy, data, bytes);
    return copy;
}

/* A file may well claim an arena of a terabyte; here there are 64 MB. */
static void *allocate(void *context, size_t bytes, size_t alignment) {
    void *memory = NULL;
    (void)context;
    if (bytes > (64u << 20) || posix_memalign(&memory, alignment, bytes) != 0) return NULL;
    return memory;
}

static void release(void *context, void *memory, size_t bytes) {
    (void)context;
    (void)bytes;
    free(memory);
}

static const edgec_allocator LIMITED = {allocate, release, NULL};

/* ---- Artifacts. ---- */

static void use_programs(edgec_model *model, uint32_t count) {
    edgec_session *session;
    edgec_program_info program;
    edgec_binding_info binding;
    void *data;
    if (edgec_session_open(model, 1, &session) != EDGEC_OK) return;
    for (uint32_t i = 0; i < count; i++) {
        if (edgec_program_get(model, i, &program) != EDGEC_OK) abort();
        touch_text(program.name);
        for (uint32_t k = 0; k < program.binding_count; k++) {
            if (edgec_binding_get(model, i, k, &binding) != EDGEC_OK) abort();
            if (edgec_binding_data(session, i, k, &data) != EDGEC_OK) abort();
            touch_text(binding.name);
            memset(data, 1, (size_t)binding.bytes);
            edgec_input(session, i, binding.name, data, 0);
        }
    }
    edgec_session_close(session);
}

static void use_tensors(edgec_model *model, uint32_t count) {
    edgec_tensor_info tensor;
    for (uint32_t i = 0; i < count; i++) {
        if (edgec_tensor_get(model, i, &tensor) != EDGEC_OK) abort();
        touch_text(tensor.name);
        void *data = malloc((size_t)tensor.bytes);
        if (data == NULL || edgec_tensor_read(model, i, data, (size_t)tensor.bytes) != EDGEC_OK) abort();
        touch(data, (size_t)tensor.bytes);
        if (edgec_tensor_write(model, i, data, (size_t)tensor.bytes) == EDGEC_OK && !tensor.writable) abort();
        free(data);
    }
}

/* What running a program would follow: calls, kernels, operands, buffers. */
static void use_calls(const artifact *a) {
    for (uint32_t i = 0; i < a->call_count; i++) {
        const format_call *c = &a->calls[i];
        touch_text(artifact_string(a, c->label));
        if (c->opcode == OPCODE_KERNEL) {
            const format_kernel *k = &a->kernels[c->kernel];
            touch_text(artifact_string(a, k->name));
            touch(&a->arguments[k->first_argument], k->argument_count * sizeof *a->arguments);
            if (a->code != NULL) touch(a->code + k->entry, 1);
        }
        for (uint32_t n = 0; n < c->operand_count; n++) {
            const format_buffer *b = &a->buffers[a->operands[c->first_operand + n]];
            if (b->region == REGION_WEIGHTS) touch(a->weights + a->tensors[b->tensor].offset + b->offset, b->bytes);
        }
    }
}

edgec_status read_artifact(const uint8_t *data, size_t bytes, edgec_location *refused) {
    edgec_options options = {.allocator = LIMITED, .refused = refused};
    edgec_model_info info;
    edgec_model *model;
    void *copy = copy_exactly(data, bytes);
    edgec_location elsewhere; /* in variants that this machine passes over */
    edgec_status status = edgec_model_open_memory(copy, bytes, &options, &model);
    edgec_status checked = edgec_artifact_check(copy, bytes, &elsewhere);
    if (checked == EDGEC_OK && status == EDGEC_MALFORMED) abort();
    if (status == EDGEC_OK) {
        edgec_model_get(model, &info);
        touch_text(info.target);
        touch(info.fingerprint, 16);
        use_tensors(model, info.tensor_count);
        use_programs(model, info.program_count);
        use_calls(&model->artifact);
        edgec_model_close(model);
        *refused = elsewhere;
        status = checked;
    }
    free(copy);
    return status;
}

/* ---- Tensor files and checkpoints. ---- */

edgec_status read_tensors(const uint8_t *data, size_t bytes, edgec_location *refused) {
    tensorfile f;
    (void)refused;
    void *copy = copy_exactly(data, bytes);
    edgec_status status = tensorfile_read(&f, copy, bytes);
    if (status == EDGEC_OK) {
        for (uint32_t i = 0; i < f.header->count; i++) {
            const char *name = tensorfile_name(&f, &f.entries[i]);
            touch(tensorfile_data(&f, &f.entries[i]), (size_t)f.entries[i].bytes);
            if (tensorfile_find(&f, name, i) != &f.entries[i]) abort();
        }
    }
    free(copy);
    return status;
}

static edgec_model *target;
static uint8_t *before; /* of PARAM and STATE */

void checkpoint_reader_open(const char *path) {
    if (edgec_model_open(path, NULL, &target) != EDGEC_OK) abort();
    size_t param = (size_t)target->artifact.variant->param_bytes, state = (size_t)target->artifact.variant->state_bytes;
    before = malloc(param + state);
    memcpy(before, target->param, param);
    memcpy(before + param, target->state, state);
}

edgec_status read_checkpoint(const uint8_t *data, size_t bytes, edgec_location *refused) {
    tensorfile f;
    (void)refused;
    size_t param = (size_t)target->artifact.variant->param_bytes, state = (size_t)target->artifact.variant->state_bytes;
    void *copy = copy_exactly(data, bytes);
    edgec_status status = tensorfile_read(&f, copy, bytes);
    if (status == EDGEC_OK) status = checkpoint_apply(&f, target);
    if (status == EDGEC_OK) {
        memcpy(target->param, before, param);
        memcpy(target->state, before + param, state);
    } else if (memcmp(target->param, before, param) != 0 || memcmp(target->state, before + param, state) != 0) {
        abort();
    }
    free(copy);
    return status;
}
