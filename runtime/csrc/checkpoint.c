/* Checkpoints: tensor files with what training changes. They hold names and row-major arrays, never storages or offsets,
 * so that one saved by a variant is read by any other. */
#include "checkpoint.h"

#include <string.h>

#include "device.h"
#include "storage.h"

/* What training may change: the tensors of a checkpoint, in the artifact's order. */
static int changes(const edgec_model *model, uint32_t tensor) {
    const format_placement *p = &model->artifact.placements[tensor];
    return p->trained || p->region == REGION_STATE;
}

/* ---- Saving. ---- */

typedef struct reading {
    const edgec_model *model;
    uint32_t tensor; /* that the cursor is in; FORMAT_NONE: in none */
    storage_cursor cursor;
} reading;

static int describe(void *context, uint32_t tensor, tensorfile_array *array) {
    const edgec_model *model = ((const reading *)context)->model;
    const format_tensor *t = &model->artifact.tensors[tensor];
    *array = (tensorfile_array){artifact_string(&model->artifact, t->name), t->shape, t->bytes, t->dtype, t->rank};
    return changes(model, tensor);
}

static void copy(void *context, uint32_t tensor, void *target, size_t bytes) {
    reading *r = context;
    const format_storage *storage;
    const uint8_t *stored = model_tensor_bytes(r->model, tensor, &storage);
    size_t element = dtype_bytes(r->model->artifact.tensors[tensor].dtype);
    if (r->tensor != tensor) storage_start(&r->cursor, storage);
    r->tensor = tensor;
    storage_unpack(&r->cursor, target, stored, bytes / element, element);
}

edgec_status edgec_checkpoint_save(edgec_model *model, const char *path, const edgec_progress *progress) {
    reading context = {.model = model, .tensor = FORMAT_NONE};
    tensorfile_source source = {&context, model->artifact.tensor_count, describe, copy};
    tensorfile_header identity = {.step = 0};
    platform_writer writer;
    memcpy(identity.fingerprint, model->artifact.header->fingerprint, sizeof identity.fingerprint);
    if (progress != NULL) {
        identity.step = progress->step;
        identity.seed = progress->seed;
    }
    edgec_status status = platform_writer_open(&writer, path);
    if (status != EDGEC_OK) return status;
    /* Training waits for the copy, not for the disk. */
    status = model_lock_for_reading(model);
    if (status == EDGEC_OK) {
        status = tensorfile_write(&writer, &identity, &source);
        platform_lock_release(&model->lock);
    }
    if (status == EDGEC_OK) return platform_writer_commit(&writer);
    platform_writer_abandon(&writer);
    return status;
}

/* ---- Loading. ---- */

/* The entry of the next tensor that training changes, from number `from` on: files keep the artifact's order, mostly. */
static const tensorfile_entry *entry_of(const tensorfile *f, const edgec_model *model, uint32_t tensor, uint32_t from) {
    const format_tensor *t = &model->artifact.tensors[tensor];
    const tensorfile_entry *e = tensorfile_find(f, artifact_string(&model->artifact, t->name), from);
    if (e == NULL || e->dtype != t->dtype || e->rank != t->rank) return NULL;
    return memcmp(e->shape, t->shape, t->rank * sizeof *t->shape) == 0 ? e : NULL;
}

static edgec_status check_match(const tensorfile *f, const edgec_model *model) {
    const artifact *a = &model->artifact;
    uint32_t found = 0;
    if (memcmp(f->header->fingerprint, a->header->fingerprint, sizeof a->header->fingerprint) != 0)
        return EDGEC_CHECKPOINT_MISMATCH;
    for (uint32_t i = 0; i < a->tensor_count; i++)
        if (changes(model, i) && (found == f->header->count || entry_of(f, model, i, found++) == NULL))
            return EDGEC_CHECKPOINT_MISMATCH;
    return found == f->header->count ? EDGEC_OK : EDGEC_CHECKPOINT_MISMATCH;
}

edgec_status checkpoint_apply(const tensorfile *f, edgec_model *model) {
    const artifact *a = &model->artifact;
    edgec_status status = check_match(f, model);
    if (status != EDGEC_OK) return status;
    uint32_t found = 0;
    platform_lock_write(&model->lock);
    status = device_fetch(model);
    for (uint32_t i = 0; i < a->tensor_count && status == EDGEC_OK; i++) {
        if (!changes(model, i)) continue;
        const format_storage *storage;
        storage_cursor cursor;
        uint8_t *stored = (uint8_t *)(uintptr_t)model_tensor_bytes(model, i, &storage);
        size_t element = dtype_bytes(a->tensors[i].dtype);
        const tensorfile_entry *e = entry_of(f, model, i, found++);
        storage_start(&cursor, storage);
        storage_pack(&cursor, stored, tensorfile_data(f, e), (size_t)e->bytes / element, element);
        status = device_push(model, a->placements[i].region, a->placements[i].offset, (size_t)e->bytes);
    }
    platform_lock_release(&model->lock);
    return status;
}

edgec_status edgec_checkpoint_load(edgec_model *model, const char *path, edgec_progress *progress) {
    tensorfile f;
    edgec_status status = tensorfile_open(&f, path);
    if (status != EDGEC_OK) return status;
    status = checkpoint_apply(&f, model);
    if (status == EDGEC_OK && progress != NULL) *progress = (edgec_progress){f.header->step, f.header->seed};
    tensorfile_close(&f);
    return status;
}

edgec_status edgec_checkpoint_get(const char *path, edgec_checkpoint_info *info) {
    tensorfile f;
    edgec_status status = tensorfile_open(&f, path);
    if (status != EDGEC_OK) return status;
    memcpy(info->fingerprint, f.header->fingerprint, sizeof info->fingerprint);
    info->progress = (edgec_progress){f.header->step, f.header->seed};
    info->bytes = f.header->file_bytes;
    info->tensor_count = f.header->count;
    tensorfile_close(&f);
    return EDGEC_OK;
}
