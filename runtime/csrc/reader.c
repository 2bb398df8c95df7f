/* From bytes to the tables of one variant: header, sections, checksums, choice of the variant. */
#include <string.h>

#include "crc32.h"
#include "device.h"

typedef struct reader {
    artifact *a;
    const edgec_options *options;
    edgec_location *refused;
    crc32_table crc;
} reader;

static edgec_status damaged(reader *r, uint32_t section) {
    *r->refused = (edgec_location){section, FORMAT_NONE};
    return EDGEC_DAMAGED;
}

static edgec_status read_header(reader *r) {
    artifact *a = r->a;
    size_t magic = a->bytes < 8 ? a->bytes : 8;
    if (magic == 0 || memcmp(a->base, FORMAT_MAGIC, magic) != 0) return EDGEC_NOT_AN_ARTIFACT;
    if (a->bytes < sizeof(format_header)) return EDGEC_TRUNCATED;
    const format_header *header = (const format_header *)(const void *)a->base;
    /* Before the checksum: a newer header may be longer. */
    if (header->version > EDGEC_FORMAT_VERSION) return EDGEC_NEWER_FORMAT;
    if (crc32_update(&r->crc, 0, header, sizeof *header - 4) != header->header_crc32) return damaged(r, 0);
    if (header->file_bytes != a->bytes) return EDGEC_TRUNCATED;
    uint32_t page = header->page_bytes;
    if (header->version == 0 || page < 64 || page > 65536 || (page & (page - 1)) != 0) return refuse(r->refused, 0, 0);
    a->header = header;
    return EDGEC_OK;
}

static edgec_status read_sections(reader *r) {
    artifact *a = r->a;
    uint32_t count = a->header->section_count;
    if (count > FORMAT_MAX_SECTIONS || count > (a->bytes - sizeof(format_header)) / sizeof(format_section))
        return refuse(r->refused, 0, 0);
    a->sections = (const format_section *)(const void *)(a->base + sizeof(format_header));
    if (crc32_update(&r->crc, 0, a->sections, count * sizeof(format_section)) != a->header->sections_crc32)
        return damaged(r, 0);

    uint64_t end = sizeof(format_header) + count * sizeof(format_section);
    for (uint32_t i = 0; i < count; i++) {
        const format_section *s = &a->sections[i];
        uint32_t alignment = s->type == SECTION_WEIGHTS || s->type == SECTION_CODE ? a->header->page_bytes : 8;
        if (s->offset < end || s->offset > a->bytes || s->bytes > a->bytes - s->offset || s->offset % alignment != 0)
            return refuse(r->refused, s->type, i);
        for (uint32_t k = 0; k < i; k++)
            if (a->sections[k].type == s->type && a->sections[k].variant == s->variant)
                return refuse(r->refused, s->type, i);
        end = s->offset + s->bytes;
    }
    return EDGEC_OK;
}

static const format_section *find_section(const artifact *a, uint32_t type, uint32_t variant) {
    for (uint32_t i = 0; i < a->header->section_count; i++)
        if (a->sections[i].type == type && a->sections[i].variant == variant) return &a->sections[i];
    return NULL;
}

/* A section of records, and the fields of the artifact that shall hold where and how many they are. */
typedef struct table {
    uint32_t type;
    size_t record_bytes;
    void *records; /* address of a pointer to any record type */
    uint32_t *count;
} table;

/* Finds sections, checks their sums, and sets the fields. */
static edgec_status read_tables(reader *r, const table *tables, size_t count, uint32_t variant) {
    for (size_t i = 0; i < count; i++) {
        const table *t = &tables[i];
        const format_section *s = find_section(r->a, t->type, variant);
        if (s == NULL || s->bytes % t->record_bytes != 0 || s->bytes / t->record_bytes >= FORMAT_NONE)
            return refuse(r->refused, t->type, FORMAT_NONE);
        const void *start = r->a->base + s->offset;
        if (crc32_update(&r->crc, 0, start, (size_t)s->bytes) != s->crc32) return damaged(r, t->type);
        memcpy(t->records, &start, sizeof start);
        *t->count = (uint32_t)(s->bytes / t->record_bytes);
    }
    return EDGEC_OK;
}

static edgec_status read_shared(reader *r) {
    artifact *a = r->a;
    const table tables[] = {
        {SECTION_STRINGS, 1, &a->strings, &a->string_bytes},
        {SECTION_STORAGES, sizeof(format_storage), &a->storages, &a->storage_count},
        {SECTION_TENSORS, sizeof(format_tensor), &a->tensors, &a->tensor_count},
        {SECTION_VARIANTS, sizeof(format_variant), &a->variants, &a->variant_count},
        {SECTION_WEIGHTS, EDGEC_ALIGNMENT, &a->weights, &a->weight_lines},
    };
    edgec_status status = read_tables(r, tables, sizeof tables / sizeof *tables, FORMAT_NONE);
    return status == EDGEC_OK ? validate_shared(a, r->refused) : status;
}

static edgec_status usable(const reader *r, uint32_t index, uint64_t features) {
    const format_variant *v = &r->a->variants[index];
    if (is_device(v->arch)) return device_probe(v);
    if (v->arch != ARCH_PORTABLE && v->arch != platform_arch()) return EDGEC_WRONG_MACHINE;
    if ((v->features & ~features) != 0) return EDGEC_MISSING_FEATURE;
    if (find_section(r->a, SECTION_CODE, index) == NULL && r->options->kernels == NULL) return EDGEC_NO_KERNELS;
    return EDGEC_OK;
}

/* CUDA before processors, for a GPU that has it is the faster; OpenCL, which may be anything, behind them. */
static int preference(const format_variant *v) {
    switch (v->arch) {
        case ARCH_CUDA: return 2 + 64;
        case ARCH_OPENCL: return 0;
        case ARCH_PORTABLE: return 1;
        default: return 2 + __builtin_popcountll(v->features);
    }
}

/* The usable variant that requires most; why the nearest to usable is not, if none is. */
static edgec_status choose_variant(reader *r, uint32_t *chosen) {
    artifact *a = r->a;
    uint64_t features = platform_features();
    edgec_status nearest = r->options->target != NULL ? EDGEC_NO_SUCH_TARGET : EDGEC_WRONG_MACHINE;
    int best = -1;
    for (uint32_t i = 0; i < a->variant_count; i++) {
        const format_variant *v = &a->variants[i];
        if (r->options->target != NULL && strcmp(r->options->target, artifact_string(a, v->target)) != 0) continue;
        int rank = preference(v);
        if (rank <= best) continue;
        edgec_status status = usable(r, i, features);
        if (status != EDGEC_OK) {
            if (nearest == EDGEC_NO_SUCH_TARGET || status > nearest) nearest = status;
            continue;
        }
        best = rank;
        *chosen = i;
    }
    return best >= 0 ? EDGEC_OK : nearest;
}

static edgec_status read_code(reader *r, uint32_t index) {
    artifact *a = r->a;
    int device = is_device(a->variant->arch);
    if (find_section(a, SECTION_CODE, index) == NULL)
        return device ? refuse(r->refused, SECTION_CODE, FORMAT_NONE) : EDGEC_OK;
    uint32_t bytes;
    const uint8_t *code;
    const table image = {SECTION_CODE, 1, &code, &bytes};
    edgec_status status = read_tables(r, &image, 1, index);
    if (status == EDGEC_OK && device) a->code_bytes = bytes; /* the driver's to judge */
    if (status == EDGEC_OK && !device) status = image_check(code, bytes, a->variant->arch, &a->code_bytes);
    if (status == EDGEC_OK) a->code = code;
    return status;
}

/* What only says how to do the same faster may be absent. */
static edgec_status read_products(reader *r, uint32_t index) {
    r->a->product_count = 0;
#ifdef EDGEC_BARE_METAL
    (void)index; /* no devices here */
#else
    const table products = {SECTION_PRODUCTS, sizeof(format_product), &r->a->products, &r->a->product_count};
    if (find_section(r->a, SECTION_PRODUCTS, index) != NULL) return read_tables(r, &products, 1, index);
#endif
    return EDGEC_OK;
}

static edgec_status read_variant(reader *r, uint32_t index) {
    artifact *a = r->a;
    uint32_t placement_count;
    const table tables[] = {
        {SECTION_PLACEMENTS, sizeof(format_placement), &a->placements, &placement_count},
        {SECTION_BUFFERS, sizeof(format_buffer), &a->buffers, &a->buffer_count},
        {SECTION_KERNELS, sizeof(format_kernel), &a->kernels, &a->kernel_count},
        {SECTION_ARGUMENTS, sizeof(format_argument), &a->arguments, &a->argument_count},
        {SECTION_PROGRAMS, sizeof(format_program), &a->programs, &a->program_count},
        {SECTION_CALLS, sizeof(format_call), &a->calls, &a->call_count},
        {SECTION_OPERANDS, sizeof(format_operand), &a->operands, &a->operand_count},
        {SECTION_BINDINGS, sizeof(format_binding), &a->bindings, &a->binding_count},
    };
    a->variant = &a->variants[index];
    edgec_status status = read_tables(r, tables, sizeof tables / sizeof *tables, index);
    if (status == EDGEC_OK) status = read_products(r, index);
    if (status == EDGEC_OK) status = read_code(r, index);
    if (status != EDGEC_OK) return status;
    if (placement_count != a->tensor_count) return refuse(r->refused, SECTION_PLACEMENTS, FORMAT_NONE);
    return validate_variant(a, r->refused);
}

/* A table that was generated for another artifact must not be called. */
static edgec_status check_linked(const reader *r) {
    const artifact *a = r->a;
    if (a->code != NULL) return EDGEC_OK;
    for (uint32_t i = 0; i < a->kernel_count; i++) {
        if (a->kernels[i].entry >= r->options->kernel_count) return EDGEC_NO_KERNELS;
        const edgec_linked_kernel *linked = &r->options->kernels[a->kernels[i].entry];
        if (linked->function == NULL) return EDGEC_NO_KERNELS;
        if (linked->name != NULL && strcmp(linked->name, artifact_string(a, a->kernels[i].name)) != 0)
            return EDGEC_NO_KERNELS;
    }
    return EDGEC_OK;
}

/* All that does not depend on the variant. */
static edgec_status start(reader *r, const uint8_t *data, size_t bytes) {
    memset(r->a, 0, sizeof *r->a);
    r->a->base = data;
    r->a->bytes = bytes;
    crc32_init(&r->crc);
    edgec_status status = (uintptr_t)data % EDGEC_ALIGNMENT == 0 ? EDGEC_OK : EDGEC_MISALIGNED;
    if (status == EDGEC_OK) status = read_header(r);
    if (status == EDGEC_OK) status = read_sections(r);
    if (status == EDGEC_OK) status = read_shared(r);
    return status;
}

edgec_status artifact_read(artifact *a, const uint8_t *data, size_t bytes, const edgec_options *options) {
    edgec_location unwanted;
    uint32_t chosen = 0;
    reader r = {.a = a, .options = options, .refused = options->refused != NULL ? options->refused : &unwanted};
    edgec_status status = start(&r, data, bytes);
    if (status == EDGEC_OK) status = choose_variant(&r, &chosen);
    if (status == EDGEC_OK) status = read_variant(&r, chosen);
    if (status == EDGEC_OK) status = check_linked(&r);
    return status;
}

edgec_status edgec_model_section(const edgec_model *model, uint32_t type, const void **data, size_t *bytes) {
    const artifact *a = &model->artifact;
    const format_section *s = find_section(a, type, FORMAT_NONE);
    *data = NULL;
    *bytes = 0;
    if (s == NULL) return EDGEC_OK;
    crc32_table crc;
    crc32_init(&crc);
    if (crc32_update(&crc, 0, a->base + s->offset, (size_t)s->bytes) != s->crc32) return EDGEC_DAMAGED;
    *data = a->base + s->offset;
    *bytes = (size_t)s->bytes;
    return EDGEC_OK;
}

edgec_status edgec_artifact_check(const void *data, size_t bytes, edgec_location *refused) {
    artifact a;
    edgec_location unwanted;
    reader r = {.a = &a, .refused = refused != NULL ? refused : &unwanted};
    edgec_status status = start(&r, data, bytes);
    for (uint32_t i = 0; status == EDGEC_OK && i < a.variant_count; i++) {
        a.code = NULL;
        status = read_variant(&r, i);
    }
    return status;
}
