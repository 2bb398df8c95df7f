/* What the parts of the runtime share: the tables of a validated artifact, and a model in memory. */
#ifndef EDGEC_MODEL_H
#define EDGEC_MODEL_H

#include "format.h"
#include "platform.h"

/* The tables of one variant, in the file. After artifact_read every index in them may be followed blindly. */
typedef struct artifact {
    const uint8_t *base;
    size_t bytes;
    const format_header *header;
    const format_section *sections;

    const char *strings;
    uint32_t string_bytes;
    const format_storage *storages;
    uint32_t storage_count;
    const format_tensor *tensors;
    uint32_t tensor_count;
    const format_variant *variants;
    uint32_t variant_count;
    const uint8_t *weights;
    uint32_t weight_lines; /* of 64 bytes: so that the count fits for files up to 256 GB */

    const format_variant *variant; /* the chosen one */
    const format_placement *placements;
    const format_buffer *buffers;
    uint32_t buffer_count;
    const format_kernel *kernels;
    uint32_t kernel_count;
    const format_argument *arguments;
    uint32_t argument_count;
    const format_product *products;
    uint32_t product_count;
    const format_program *programs;
    uint32_t program_count;
    const format_call *calls;
    uint32_t call_count;
    const format_operand *operands;
    uint32_t operand_count;
    const format_binding *bindings;
    uint32_t binding_count;
    const uint8_t *code; /* NULL: the kernels are linked in */
    size_t code_bytes;   /* of the image's segment */
} artifact;

/* reader.c: finds and checks everything of the variant that `options` and this machine lead to. */
edgec_status artifact_read(artifact *a, const uint8_t *data, size_t bytes, const edgec_options *options);

/* validate.c: the rules of ../README.md, "What is refused". */
edgec_status validate_shared(const artifact *a, edgec_location *refused);
edgec_status validate_variant(const artifact *a, edgec_location *refused);

/* Product of a shape times `element_bytes`; 0 if it has a wrong rank, no dtype or is too large. */
int shape_bytes(const uint32_t *shape, uint8_t rank, uint64_t element_bytes, uint64_t *bytes);

/* EDGEC_MALFORMED, and where. */
static inline edgec_status refuse(edgec_location *refused, uint32_t section, uint32_t record) {
    *refused = (edgec_location){section, record};
    return EDGEC_MALFORMED;
}

/* image.c: the rules of ../README.md, "Code image". Sets `bytes` to those that its segment covers. */
edgec_status image_check(const uint8_t *image, size_t size, uint8_t arch, size_t *bytes);

struct edgec_model {
    artifact artifact;
    edgec_allocator allocator;
    size_t allocation; /* bytes of this block, which the regions are part of */
    platform_file file;
    platform_code code;
    const edgec_linked_kernel *linked;
    platform_lock lock; /* of the bytes in `param` and `state` */
    uint8_t *param;
    uint8_t *state;
    struct device *device; /* device.h; NULL: kernels run here, on the bytes above */
    uint64_t device_param, device_state;
    int device_newer;      /* than `param` and `state` */
    uint8_t *updates; /* of each program: whether it writes to them */
    size_t arena_bytes;
};

/* Bytes of an element, 0 for an unknown dtype. */
size_t dtype_bytes(uint8_t dtype);

/* Locks a model whose tensors are to be read on the host, and brings them there; they are unlocked if that fails. */
edgec_status model_lock_for_reading(edgec_model *model);

/* Where a tensor's stored bytes lie now, and in which storage. The bytes are const only in WEIGHTS. */
const uint8_t *model_tensor_bytes(const edgec_model *model, uint32_t tensor, const format_storage **storage);

/* Whether operand number `operand` of a call is written. */
int call_writes(const artifact *a, const format_call *call, uint32_t operand);

static inline const char *artifact_string(const artifact *a, uint32_t offset) { return a->strings + offset; }

#endif
