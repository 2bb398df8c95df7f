/* Proves that every index, offset, count and size of the tables may be followed; ../README.md lists the rules.
 *
 * Checksums do not replace this: a file may have been made wrong. Every loop is linear in the bytes of the file:
 * ranges of records must follow one another, so that no record is looked at twice. */
#include <string.h>

#include "device.h"

enum {
    MAX_THREADS = 1024, /* of a group on a device */
    MAX_GUARDS = 2      /* behind what updates: the loss, and the norm of the gradients */
};
static const uint64_t MAX_BYTES = SIZE_MAX / 4; /* sums of a few sizes cannot overflow */

static int valid_name(const artifact *a, uint32_t offset) {
    if (offset >= a->string_bytes) return 0;
    uint32_t left = a->string_bytes - offset;
    return memchr(a->strings + offset, 0, left < EDGEC_MAX_NAME + 1 ? left : EDGEC_MAX_NAME + 1) != NULL;
}

int shape_bytes(const uint32_t *shape, uint8_t rank, uint64_t element_bytes, uint64_t *bytes) {
    uint64_t product = element_bytes;
    if (rank > EDGEC_MAX_RANK || element_bytes == 0) return 0;
    for (uint8_t axis = 0; axis < rank; axis++) {
        if (shape[axis] != 0 && product > MAX_BYTES / shape[axis]) return 0;
        product *= shape[axis];
    }
    *bytes = product;
    return 1;
}

static int within(uint64_t offset, uint64_t bytes, uint64_t total) { return offset <= total && bytes <= total - offset; }

/* ---- Shared sections. ---- */

static int valid_storage(const format_storage *s) {
    uint64_t elements;
    uint32_t seen = 0;
    if (!shape_bytes(s->dims, s->rank, 1, &elements)) return 0;
    for (uint8_t place = 0; place < s->rank; place++) {
        if (s->perm[place] >= s->rank) return 0;
        seen |= 1u << s->perm[place];
    }
    return seen == (1u << s->rank) - 1u && (s->block == 0 || s->rank > 0);
}

/* Whether storage number `storage` holds as many elements as a tensor of `bytes`. */
static int storage_fits(const artifact *a, uint32_t storage, uint64_t bytes, uint8_t dtype) {
    uint64_t stored;
    if (storage >= a->storage_count) return 0;
    const format_storage *s = &a->storages[storage];
    return shape_bytes(s->dims, s->rank, dtype_bytes(dtype), &stored) && stored == bytes;
}

/* `end` of the tensor before: bytes that no two tensors share bound what all of them take in RAM by the file's size. */
static int valid_tensor(const artifact *a, const format_tensor *t, uint64_t *end) {
    uint64_t bytes;
    if (!valid_name(a, t->name) || t->kind > EDGEC_CONSTANT ||
        !shape_bytes(t->shape, t->rank, dtype_bytes(t->dtype), &bytes) || bytes != t->bytes ||
        !storage_fits(a, t->storage, bytes, t->dtype))
        return 0;
    if (t->offset == FORMAT_ZEROS) return 1;
    if (t->offset < *end || t->offset % EDGEC_ALIGNMENT != 0 ||
        !within(t->offset, t->bytes, (uint64_t)a->weight_lines * EDGEC_ALIGNMENT))
        return 0;
    *end = t->offset + t->bytes;
    return 1;
}

edgec_status validate_shared(const artifact *a, edgec_location *refused) {
    uint64_t end = 0;
    for (uint32_t i = 0; i < a->storage_count; i++)
        if (!valid_storage(&a->storages[i])) return refuse(refused, SECTION_STORAGES, i);
    for (uint32_t i = 0; i < a->tensor_count; i++)
        if (!valid_tensor(a, &a->tensors[i], &end)) return refuse(refused, SECTION_TENSORS, i);
    for (uint32_t i = 0; i < a->variant_count; i++)
        if (!valid_name(a, a->variants[i].target)) return refuse(refused, SECTION_VARIANTS, i);
    return EDGEC_OK;
}

/* ---- One variant. ---- */

/* `size` of PARAM and of STATE so far: each placement lies at the next multiple of 64, in the order of tensors, so that
 * none overlap and a region is no larger than what it holds. */
static int valid_placement(const artifact *a, uint32_t index, uint64_t size[2]) {
    const format_placement *p = &a->placements[index];
    const format_tensor *t = &a->tensors[index];
    /* A device has no view of the file. */
    if (p->region == REGION_WEIGHTS)
        return p->storage == t->storage && p->offset == 0 && p->trained == 0 && !is_device(a->variant->arch) &&
               t->offset != FORMAT_ZEROS;
    if (p->region != (t->kind == EDGEC_STATE ? REGION_STATE : REGION_PARAM)) return 0;
    if (p->trained > (t->kind == EDGEC_CONSTANT ? 0 : 1)) return 0;
    uint64_t *next = &size[p->region == REGION_STATE];
    if (p->offset != *next || t->bytes > MAX_BYTES - *next) return 0;
    *next = (*next + t->bytes + EDGEC_ALIGNMENT - 1) / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT;
    return storage_fits(a, p->storage, t->bytes, t->dtype);
}

static int valid_buffer(const artifact *a, const format_buffer *b) {
    switch (b->region) {
        case REGION_ARENA: return b->offset % EDGEC_ALIGNMENT == 0 && within(b->offset, b->bytes, MAX_BYTES);
        case REGION_PARAM: return within(b->offset, b->bytes, a->variant->param_bytes);
        case REGION_STATE: return within(b->offset, b->bytes, a->variant->state_bytes);
        case REGION_WEIGHTS:
            return b->tensor < a->tensor_count && a->placements[b->tensor].region == REGION_WEIGHTS &&
                   within(b->offset, b->bytes, a->tensors[b->tensor].bytes);
        default: return 0;
    }
}

/* Takes the range `first`..`first + count` if it begins where the previous one ended. */
static int next_range(uint32_t *end, uint32_t first, uint32_t count, uint32_t total) {
    if (first != *end || count > total - first) return 0;
    *end += count;
    return 1;
}

static int valid_kernel(const artifact *a, const format_kernel *k, uint32_t *end) {
    uint32_t most = is_device(a->variant->arch) ? EDGEC_MAX_DEVICE_ARGUMENTS : EDGEC_MAX_ARGUMENTS;
    if (!valid_name(a, k->name) || k->argument_count == 0 || k->argument_count > most) return 0;
    if (!next_range(end, k->first_argument, k->argument_count, a->argument_count)) return 0;
    if (is_device(a->variant->arch)) return k->threads > 0 && k->threads <= MAX_THREADS;
    /* No function begins inside the ELF header. */
    return a->code == NULL || (k->entry >= 64 && k->entry < a->code_bytes);
}

#ifndef EDGEC_BARE_METAL

/* Whether `batch` matrices in rows of `leading` elements, one every `stride` elements, lie in an argument. */
static int holds_matrices(const format_argument *argument, uint32_t batch, uint32_t rows, uint32_t columns,
                          uint32_t leading, uint64_t stride) {
    uint64_t elements = argument->bytes / sizeof(float), matrix = (uint64_t)(rows - 1) * leading + columns;
    return leading >= columns && leading <= INT32_MAX && argument->bytes <= MAX_BYTES && matrix <= elements &&
           (batch == 1 || stride <= (elements - matrix) / (batch - 1));
}

/* `next`: the first kernel that it may be of. */
static int valid_product(const artifact *a, const format_product *p, uint32_t *next) {
    const uint32_t extents[] = {p->batch, p->rows, p->columns, p->depth};
    if (a->variant->arch != ARCH_CUDA || p->kernel < *next || p->kernel >= a->kernel_count) return 0;
    *next = p->kernel + 1;
    for (int i = 0; i < 4; i++)
        if (extents[i] == 0 || extents[i] > INT32_MAX) return 0;
    if (p->factors[0] > 2 || p->factors[1] > 2 || p->result > 2 || p->tf32 > 1) return 0;
    if ((1u << p->factors[0] | 1u << p->factors[1] | 1u << p->result) != 7u) return 0;
    const format_kernel *k = &a->kernels[p->kernel];
    const format_argument *arguments = &a->arguments[k->first_argument];
    if (k->argument_count != 3 || arguments[p->result].access != ACCESS_WRITE) return 0;
    for (int i = 0; i < 2; i++) {
        uint32_t rows = i == 0 ? p->rows : p->depth, columns = i == 0 ? p->depth : p->columns;
        if (p->transposed[i] > 1 || arguments[p->factors[i]].access != ACCESS_READ) return 0;
        if (!holds_matrices(&arguments[p->factors[i]], p->batch, p->transposed[i] ? columns : rows,
                            p->transposed[i] ? rows : columns, p->leading[i], p->strides[i]))
            return 0;
    }
    return holds_matrices(&arguments[p->result], p->batch, p->rows, p->columns, p->columns,
                          (uint64_t)p->rows * p->columns);
}

#endif

static int in_arena(const format_buffer *b, const format_program *p) { return within(b->offset, b->bytes, p->arena_bytes); }

static int is_guard(const format_call *c) {
    return c->opcode == OPCODE_GUARD || c->opcode == OPCODE_GUARD_GRADIENTS;
}

static int valid_call(const artifact *a, const format_program *p, const format_call *c, uint32_t *end) {
    if (!valid_name(a, c->label) || c->tasks < 0) return 0;
    if (!next_range(end, c->first_operand, c->operand_count, a->operand_count)) return 0;
    if (c->opcode > OPCODE_GUARD_GRADIENTS) return 0;
    if (c->opcode == OPCODE_KERNEL) {
        if (c->kernel >= a->kernel_count || c->operand_count != a->kernels[c->kernel].argument_count) return 0;
    } else if (c->operand_count != 1) {
        return 0;
    }
    for (uint32_t i = 0; i < c->operand_count; i++) {
        uint32_t index = a->operands[c->first_operand + i];
        if (index >= a->buffer_count) return 0;
        const format_buffer *b = &a->buffers[index];
        uint64_t needed = is_guard(c) ? sizeof(float) : 0;
        if (c->opcode == OPCODE_KERNEL) needed = a->arguments[a->kernels[c->kernel].first_argument + i].bytes;
        if (b->bytes < needed || (b->region == REGION_ARENA && !in_arena(b, p))) return 0;
        if (call_writes(a, c, i) && b->region == REGION_WEIGHTS) return 0;
    }
    return 1;
}

static int call_updates(const artifact *a, const format_call *c) {
    for (uint32_t i = 0; i < c->operand_count; i++) {
        uint8_t region = a->buffers[a->operands[c->first_operand + i]].region;
        if (call_writes(a, c, i) && (region == REGION_PARAM || region == REGION_STATE)) return 1;
    }
    return 0;
}

static int call_reads(const artifact *a, const format_call *c, uint32_t buffer) {
    for (uint32_t i = 0; i < c->operand_count; i++)
        if (a->operands[c->first_operand + i] == buffer && !call_writes(a, c, i)) return 1;
    return 0;
}

/* At the end of a device's program, where what updates reads what the guard does: it looks for itself. */
static int may_follow_updates(const artifact *a, const format_program *p, uint32_t guard) {
    if (!is_device(a->variant->arch) || guard + MAX_GUARDS < p->first_call + p->call_count) return 0;
    uint32_t watched = a->operands[a->calls[guard].first_operand];
    for (uint32_t i = p->first_call; i < guard; i++)
        if (call_updates(a, &a->calls[i]) && !call_reads(a, &a->calls[i], watched)) return 0;
    return 1;
}

static int is_integer(const format_binding *b) { return b->dtype >= EDGEC_I8 && b->dtype <= EDGEC_I64; }

/* Whether the binding is limited by nothing, is an integer input limited by an integer scalar, or an output counted by
 * an integer output of one element, along an axis that it has. */
static int valid_limit(const artifact *a, const format_program *p, const format_binding *b) {
    if (b->limit == 0) return b->axis == 0;
    if (b->limit > p->binding_count) return 0;
    const format_binding *limit = &a->bindings[p->first_binding + b->limit - 1];
    if (!is_integer(limit)) return 0;
    if (b->slot == EDGEC_SLOT_OUTPUT) return limit->slot == EDGEC_SLOT_OUTPUT && limit->rank == 0 && b->axis < b->rank;
    return limit->slot == EDGEC_SLOT_SCALAR && b->high >= b->low && b->axis == 0;
}

static int valid_binding(const artifact *a, const format_program *p, const format_binding *b) {
    uint64_t bytes;
    if (!valid_name(a, b->name) || b->slot > EDGEC_SLOT_LOSS || b->buffer >= a->buffer_count) return 0;
    if (!shape_bytes(b->shape, b->rank, dtype_bytes(b->dtype), &bytes)) return 0;
    const format_buffer *buffer = &a->buffers[b->buffer];
    if (buffer->region != REGION_ARENA || !in_arena(buffer, p) || bytes > buffer->bytes) return 0;
    if ((b->slot == EDGEC_SLOT_SCALAR || b->slot == EDGEC_SLOT_LOSS) && bytes != dtype_bytes(b->dtype)) return 0;
    if (b->slot == EDGEC_SLOT_LOSS && b->dtype != EDGEC_F32) return 0;
    if (!valid_limit(a, p, b)) return 0;
    return b->high < b->low || (is_integer(b) && (b->slot == EDGEC_SLOT_INPUT || b->slot == EDGEC_SLOT_SCALAR));
}

/* Where the previous program's records ended. */
typedef struct ends {
    uint32_t calls, operands, bindings;
} ends;

static edgec_status validate_program(const artifact *a, uint32_t index, ends *end, edgec_location *refused) {
    const format_program *p = &a->programs[index];
    int updated = 0;
    if (!valid_name(a, p->name) || p->arena_bytes > MAX_BYTES ||
        !next_range(&end->calls, p->first_call, p->call_count, a->call_count) ||
        !next_range(&end->bindings, p->first_binding, p->binding_count, a->binding_count))
        return refuse(refused, SECTION_PROGRAMS, index);
    for (uint32_t i = p->first_call; i < end->calls; i++) {
        const format_call *c = &a->calls[i];
        if (!valid_call(a, p, c, &end->operands)) return refuse(refused, SECTION_CALLS, i);
        if (is_guard(c) && updated && !may_follow_updates(a, p, i)) return refuse(refused, SECTION_CALLS, i);
        updated |= call_updates(a, c);
    }
    for (uint32_t i = p->first_binding; i < end->bindings; i++)
        if (!valid_binding(a, p, &a->bindings[i])) return refuse(refused, SECTION_BINDINGS, i);
    return EDGEC_OK;
}

edgec_status validate_variant(const artifact *a, edgec_location *refused) {
    uint64_t size[2] = {0, 0};
    uint32_t arguments = 0;
    ends end = {0, 0, 0};
    for (uint32_t i = 0; i < a->tensor_count; i++)
        if (!valid_placement(a, i, size)) return refuse(refused, SECTION_PLACEMENTS, i);
    if (size[0] != a->variant->param_bytes || size[1] != a->variant->state_bytes)
        return refuse(refused, SECTION_VARIANTS, (uint32_t)(a->variant - a->variants));
    for (uint32_t i = 0; i < a->buffer_count; i++)
        if (!valid_buffer(a, &a->buffers[i])) return refuse(refused, SECTION_BUFFERS, i);
    for (uint32_t i = 0; i < a->argument_count; i++)
        if (a->arguments[i].access < ACCESS_READ || a->arguments[i].access > ACCESS_READ_WRITE)
            return refuse(refused, SECTION_ARGUMENTS, i);
    for (uint32_t i = 0; i < a->kernel_count; i++)
        if (!valid_kernel(a, &a->kernels[i], &arguments)) return refuse(refused, SECTION_KERNELS, i);
#ifndef EDGEC_BARE_METAL
    uint32_t kernel = 0;
    for (uint32_t i = 0; i < a->product_count; i++)
        if (!valid_product(a, &a->products[i], &kernel)) return refuse(refused, SECTION_PRODUCTS, i);
#endif
    for (uint32_t i = 0; i < a->program_count; i++) {
        edgec_status status = validate_program(a, i, &end, refused);
        if (status != EDGEC_OK) return status;
    }
    return EDGEC_OK;
}
