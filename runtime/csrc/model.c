/* A model: opening, its parameters and states, and asking what an artifact holds. */
#include "model.h"

#include <string.h>

#include "device.h"
#include "edgec_memory.h"
#include "storage.h"

_Static_assert(sizeof(edgec_model) <= EDGEC_MODEL_FIELDS, "raise EDGEC_MODEL_FIELDS");

size_t dtype_bytes(uint8_t dtype) {
    static const uint8_t bytes[] = {2, 2, 4, 8, 1, 1, 4, 8, 1}; /* by edgec_dtype */
    return dtype < sizeof bytes ? bytes[dtype] : 0;
}

int call_writes(const artifact *a, const format_call *call, uint32_t operand) {
    switch (call->opcode) {
        case OPCODE_KERNEL:
            return (a->arguments[a->kernels[call->kernel].first_argument + operand].access & ACCESS_WRITE) != 0;
        case OPCODE_ZERO: return 1;
        default: return 0;
    }
}

static uint8_t program_updates(const artifact *a, const format_program *p) {
    for (uint32_t i = 0; i < p->call_count; i++) {
        const format_call *c = &a->calls[p->first_call + i];
        for (uint32_t k = 0; k < c->operand_count; k++)
            if (a->buffers[a->operands[c->first_operand + k]].region != REGION_ARENA && call_writes(a, c, k)) return 1;
    }
    return 0;
}

/* ---- Opening. ---- */

const uint8_t *model_tensor_bytes(const edgec_model *model, uint32_t tensor, const format_storage **storage) {
    const artifact *a = &model->artifact;
    const format_placement *p = &a->placements[tensor];
    *storage = &a->storages[p->storage];
    switch (p->region) {
        case REGION_PARAM: return model->param + p->offset;
        case REGION_STATE: return model->state + p->offset;
        default: return a->weights + a->tensors[tensor].offset;
    }
}

/* Pieces after which the pages of the file that they came from are let go, so that no moment has all of both. */
#define COPIED_BYTES ((size_t)1 << 20)

/* `held` counts the bytes whose pages are still there. */
static void copy_out(const edgec_model *model, uint8_t *target, const uint8_t *source, size_t bytes, size_t *held) {
    while (bytes > 0) {
        size_t piece = bytes < COPIED_BYTES - *held ? bytes : COPIED_BYTES - *held;
        memcpy(target, source, piece);
        target += piece, source += piece, bytes -= piece, *held += piece;
        if (*held < COPIED_BYTES) continue;
        platform_file_forget(&model->file);
        *held = 0;
    }
}

static void fill_regions(edgec_model *model) {
    const artifact *a = &model->artifact;
    size_t held = 0;
    memset(model->param, 0, (size_t)a->variant->param_bytes);
    memset(model->state, 0, (size_t)a->variant->state_bytes);
    for (uint32_t i = 0; i < a->tensor_count; i++) {
        const format_tensor *t = &a->tensors[i];
        const format_storage *storage, *stored = &a->storages[t->storage];
        uint8_t *target = (uint8_t *)(uintptr_t)model_tensor_bytes(model, i, &storage);
        size_t element = dtype_bytes(t->dtype);
        if (a->placements[i].region == REGION_WEIGHTS || t->offset == FORMAT_ZEROS) continue;
        const uint8_t *source = a->weights + t->offset;
        if (memcmp(storage, stored, sizeof *storage) == 0)
            copy_out(model, target, source, (size_t)t->bytes, &held);
        else
            storage_convert(storage, target, stored, source, (size_t)t->bytes / element, element);
    }
}

/* One block: the model, PARAM, STATE, and a byte for every program. */
static edgec_status create(const artifact *a, const platform_file *file, const edgec_allocator *allocator,
                           edgec_model **created) {
    size_t total = EDGEC_MODEL_BYTES(a->variant->param_bytes, a->variant->state_bytes, a->program_count);
    size_t param = EDGEC_MODEL_FIELDS;
    size_t state = param + EDGEC_LINES(a->variant->param_bytes);
    size_t updates = state + EDGEC_LINES(a->variant->state_bytes);
    uint8_t *block = allocator->allocate(allocator->context, total, EDGEC_ALIGNMENT);
    if (block == NULL) return EDGEC_OUT_OF_MEMORY;

    edgec_model *model = (edgec_model *)(void *)block;
    memset(model, 0, sizeof *model);
    model->artifact = *a;
    model->file = *file;
    model->allocator = *allocator;
    model->allocation = total;
    model->param = block + param;
    model->state = block + state;
    model->updates = block + updates;
    for (uint32_t i = 0; i < a->program_count; i++) {
        model->updates[i] = program_updates(a, &a->programs[i]);
        if (a->programs[i].arena_bytes > model->arena_bytes) model->arena_bytes = (size_t)a->programs[i].arena_bytes;
    }
    fill_regions(model);
    *created = model;
    return EDGEC_OK;
}

static void destroy(edgec_model *model) {
    edgec_allocator allocator = model->allocator;
    allocator.release(allocator.context, model, model->allocation);
}

/* Takes over `file` if it succeeds. */
static edgec_status open_file(const platform_file *file, const edgec_options *options, edgec_model **opened) {
    static const edgec_options defaults;
    artifact a;
    edgec_model *model;
    if (options == NULL) options = &defaults;
    edgec_allocator allocator = options->allocator.allocate != NULL ? options->allocator : platform_allocator();

    edgec_status status = artifact_read(&a, file->data, file->bytes, options);
    platform_file_forget(file); /* checksums have read all of it */
    if (status == EDGEC_OK) status = create(&a, file, &allocator, &model);
    if (status != EDGEC_OK) return status;
    model->linked = options->kernels;
    if (is_device(a.variant->arch))
        status = device_open(model, options);
    else if (a.code != NULL)
        status = platform_code_map(file, (size_t)(a.code - a.base), a.code_bytes, &model->code);
    if (status == EDGEC_OK) {
        status = platform_lock_init(&model->lock);
        if (status != EDGEC_OK) {
            device_close(model);
            platform_code_unmap(&model->code);
        }
    }
    if (status != EDGEC_OK) {
        destroy(model);
        return status;
    }
    platform_file_forget(file); /* of trained weights there is another copy now */
    *opened = model;
    return EDGEC_OK;
}

edgec_status edgec_model_open(const char *path, const edgec_options *options, edgec_model **model) {
    platform_file file;
    edgec_status status = platform_file_map(path, &file);
    if (status != EDGEC_OK) return status;
    status = open_file(&file, options, model);
    if (status != EDGEC_OK) platform_file_unmap(&file);
    return status;
}

edgec_status edgec_model_open_memory(const void *data, size_t bytes, const edgec_options *options, edgec_model **model) {
    platform_file file = {data, bytes, -1};
    return open_file(&file, options, model);
}

void edgec_model_close(edgec_model *model) {
    if (model == NULL) return;
    device_close(model);
    platform_lock_destroy(&model->lock);
    platform_code_unmap(&model->code);
    platform_file_unmap(&model->file);
    destroy(model);
}

/* ---- Asking. ---- */

void edgec_model_get(const edgec_model *model, edgec_model_info *info) {
    const artifact *a = &model->artifact;
    info->target = artifact_string(a, a->variant->target);
    info->fingerprint = a->header->fingerprint;
    info->param_bytes = a->variant->param_bytes;
    info->state_bytes = a->variant->state_bytes;
    info->arena_bytes = model->arena_bytes;
    info->program_count = a->program_count;
    info->tensor_count = a->tensor_count;
}

edgec_status edgec_program_get(const edgec_model *model, uint32_t program, edgec_program_info *info) {
    const artifact *a = &model->artifact;
    if (program >= a->program_count) return EDGEC_NO_SUCH_PROGRAM;
    const format_program *p = &a->programs[program];
    info->name = artifact_string(a, p->name);
    info->arena_bytes = p->arena_bytes;
    info->macs = 0;
    for (uint32_t i = 0; i < p->call_count; i++) info->macs += a->calls[p->first_call + i].macs;
    info->call_count = p->call_count;
    info->binding_count = p->binding_count;
    info->updates = model->updates[program];
    return EDGEC_OK;
}

edgec_status edgec_program_find(const edgec_model *model, const char *name, uint32_t *program) {
    const artifact *a = &model->artifact;
    for (uint32_t i = 0; i < a->program_count; i++) {
        if (strcmp(artifact_string(a, a->programs[i].name), name) != 0) continue;
        *program = i;
        return EDGEC_OK;
    }
    return EDGEC_NO_SUCH_PROGRAM;
}

/* Bytes of a row-major tensor; its extents are validated. */
static uint64_t copy_shape(uint32_t *target, const uint32_t *shape, uint32_t rank, uint8_t dtype) {
    uint64_t bytes = dtype_bytes(dtype);
    for (uint32_t axis = 0; axis < EDGEC_MAX_RANK; axis++) target[axis] = axis < rank ? shape[axis] : 0;
    for (uint32_t axis = 0; axis < rank; axis++) bytes *= shape[axis];
    return bytes;
}

edgec_status edgec_binding_get(const edgec_model *model, uint32_t program, uint32_t binding, edgec_binding_info *info) {
    const artifact *a = &model->artifact;
    if (program >= a->program_count) return EDGEC_NO_SUCH_PROGRAM;
    if (binding >= a->programs[program].binding_count) return EDGEC_NO_SUCH_TENSOR;
    const format_binding *b = &a->bindings[a->programs[program].first_binding + binding];
    info->name = artifact_string(a, b->name);
    info->slot = (edgec_slot)b->slot;
    info->dtype = (edgec_dtype)b->dtype;
    info->rank = b->rank;
    info->bytes = copy_shape(info->shape, b->shape, b->rank, b->dtype);
    info->low = b->low;
    info->ignored = b->ignored;
    info->high = b->high;
    info->below = b->slot == EDGEC_SLOT_OUTPUT ? 0 : b->limit;
    info->count = b->slot == EDGEC_SLOT_OUTPUT ? b->limit : 0;
    info->count_axis = b->axis;
    return EDGEC_OK;
}

edgec_status edgec_binding_find(const edgec_model *model, uint32_t program, const char *name, uint32_t *binding) {
    const artifact *a = &model->artifact;
    if (program >= a->program_count) return EDGEC_NO_SUCH_PROGRAM;
    const format_program *p = &a->programs[program];
    for (uint32_t i = 0; i < p->binding_count; i++) {
        if (strcmp(artifact_string(a, a->bindings[p->first_binding + i].name), name) != 0) continue;
        *binding = i;
        return EDGEC_OK;
    }
    return EDGEC_NO_SUCH_TENSOR;
}

edgec_status edgec_tensor_get(const edgec_model *model, uint32_t tensor, edgec_tensor_info *info) {
    const artifact *a = &model->artifact;
    if (tensor >= a->tensor_count) return EDGEC_NO_SUCH_TENSOR;
    const format_tensor *t = &a->tensors[tensor];
    info->name = artifact_string(a, t->name);
    info->kind = (edgec_tensor_kind)t->kind;
    info->dtype = (edgec_dtype)t->dtype;
    info->rank = t->rank;
    info->bytes = copy_shape(info->shape, t->shape, t->rank, t->dtype);
    info->trained = a->placements[tensor].trained;
    info->writable = a->placements[tensor].region != REGION_WEIGHTS;
    return EDGEC_OK;
}

edgec_status edgec_tensor_find(const edgec_model *model, const char *name, uint32_t *tensor) {
    const artifact *a = &model->artifact;
    for (uint32_t i = 0; i < a->tensor_count; i++) {
        if (strcmp(artifact_string(a, a->tensors[i].name), name) != 0) continue;
        *tensor = i;
        return EDGEC_OK;
    }
    return EDGEC_NO_SUCH_TENSOR;
}

/* ---- Parameters and states. ---- */

edgec_status model_lock_for_reading(edgec_model *model) {
    if (model->device == NULL) {
        platform_lock_read(&model->lock);
        return EDGEC_OK;
    }
    platform_lock_write(&model->lock);
    edgec_status status = device_fetch(model);
    if (status != EDGEC_OK) platform_lock_release(&model->lock);
    return status;
}

edgec_status edgec_tensor_read(edgec_model *model, uint32_t tensor, void *data, size_t bytes) {
    const artifact *a = &model->artifact;
    const format_storage *storage;
    storage_cursor cursor;
    if (tensor >= a->tensor_count) return EDGEC_NO_SUCH_TENSOR;
    if (bytes != a->tensors[tensor].bytes) return EDGEC_WRONG_SIZE;
    const uint8_t *stored = model_tensor_bytes(model, tensor, &storage);
    size_t element = dtype_bytes(a->tensors[tensor].dtype);
    storage_start(&cursor, storage);
    edgec_status status = model_lock_for_reading(model);
    if (status != EDGEC_OK) return status;
    storage_unpack(&cursor, data, stored, bytes / element, element);
    platform_lock_release(&model->lock);
    return EDGEC_OK;
}

edgec_status edgec_tensor_write(edgec_model *model, uint32_t tensor, const void *data, size_t bytes) {
    const artifact *a = &model->artifact;
    const format_storage *storage;
    storage_cursor cursor;
    if (tensor >= a->tensor_count) return EDGEC_NO_SUCH_TENSOR;
    if (bytes != a->tensors[tensor].bytes) return EDGEC_WRONG_SIZE;
    if (a->placements[tensor].region == REGION_WEIGHTS) return EDGEC_READ_ONLY;
    uint8_t *stored = (uint8_t *)(uintptr_t)model_tensor_bytes(model, tensor, &storage);
    size_t element = dtype_bytes(a->tensors[tensor].dtype);
    storage_start(&cursor, storage);
    platform_lock_write(&model->lock);
    edgec_status status = device_fetch(model);
    if (status == EDGEC_OK) {
        storage_pack(&cursor, stored, data, bytes / element, element);
        status = device_push(model, a->placements[tensor].region, a->placements[tensor].offset, bytes);
    }
    platform_lock_release(&model->lock);
    return status;
}
