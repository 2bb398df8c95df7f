"""The texts of a static library that do not depend on the model, for `string.Template`."""

HEADER = """\
/* $name: compiled for $target by edgec $version (`edgec compile --emit static`). Do not edit; see README.md. */
#ifndef ${NAME}_H
#define ${NAME}_H

#include "edgec_memory.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Constants: tables and initial weights, used in place. */
#define ${NAME}_ARTIFACT_BYTES ${artifact}u
#define ${NAME}_WEIGHTS_BYTES ${weights}u /* of these */
extern const uint64_t ${name}_artifact[];

/* Code. */
#define ${NAME}_KERNEL_COUNT ${kernels}u
extern const edgec_linked_kernel ${name}_kernels[];

/* Memory: copies of what training changes, its states, and the arena of the largest program. */
#define ${NAME}_PARAM_BYTES ${param}u
#define ${NAME}_STATE_BYTES ${state}u
#define ${NAME}_ARENA_BYTES ${arena}u
#define ${NAME}_MEMORY_BYTES \\
    (EDGEC_MODEL_BYTES(${NAME}_PARAM_BYTES, ${NAME}_STATE_BYTES, ${programs}u) + \\
     EDGEC_SESSION_BYTES(${NAME}_ARENA_BYTES, ${buffers}u))
#define ${NAME}_STACK_BYTES ${stack}u /* the caller of any function needs at most this much on a Cortex-M */

/* Opens the model and one session of one thread in ${NAME}_MEMORY_BYTES of static memory: no heap is used, and a second
 * open fails with EDGEC_OUT_OF_MEMORY until both are closed, the session first. ${NAME}_MEMORY_ATTRIBUTE, if defined
 * when ${name}.c is compiled, says where that memory lies: __attribute__((section(".dtcm"))), say. */
edgec_status ${name}_open(edgec_model **model, edgec_session **session);

/* Programs by number, and their inputs and outputs, for edgec_run and edgec_binding_data. */
$signature
#ifdef __cplusplus
}
#endif
#endif
"""

MEMORY = """\
#include "${name}.h"

#ifndef ${NAME}_MEMORY_ATTRIBUTE
#define ${NAME}_MEMORY_ATTRIBUTE
#endif

static _Alignas(EDGEC_ALIGNMENT) uint8_t memory[${NAME}_MEMORY_BYTES] ${NAME}_MEMORY_ATTRIBUTE;
static size_t used;

/* Every request is a whole number of lines. */
static void *allocate(void *context, size_t bytes, size_t alignment) {
    (void)context, (void)alignment;
    if (bytes > sizeof memory - used) return NULL;
    void *start = memory + used;
    used += bytes;
    return start;
}

/* The session is closed before its model: the last one out is the first one back. */
static void release(void *context, void *block, size_t bytes) {
    (void)context, (void)block;
    used -= bytes;
}

edgec_status ${name}_open(edgec_model **model, edgec_session **session) {
    edgec_options options = {
        .allocator = {allocate, release, NULL},
        .kernels = ${name}_kernels,
        .kernel_count = ${NAME}_KERNEL_COUNT,
    };
    edgec_status status = edgec_model_open_memory(${name}_artifact, ${NAME}_ARTIFACT_BYTES, &options, model);
    if (status != EDGEC_OK) return status;
    status = edgec_session_open(*model, 1, session);
    if (status != EDGEC_OK) edgec_model_close(*model);
    return status;
}
"""

ARTIFACT = """\
#include "${name}.h"

_Alignas(EDGEC_ALIGNMENT) const uint64_t ${name}_artifact[] = {
$words
};
"""

TABLE = """
#include "${name}.h"

${declarations}
const edgec_linked_kernel ${name}_kernels[] = {
$rows};
"""

ASSEMBLY = """\
    .section .text.${name}, "ax", %progbits
    .balign 4096
$code
    .section .note.GNU-stack, "", %progbits
"""

CONFIG_GUARD = "#define EDGEC_CONFIG_H\n"
NO_DEVICES = "\n#define EDGEC_DEVICES 0\n"
BARE_METAL = "\n#ifndef EDGEC_BARE_METAL\n#define EDGEC_BARE_METAL\n#endif\n"

EXAMPLE = """\
/* Runs every program that updates nothing once, on inputs of zero, and prints the first elements of its outputs. */
#include <stdio.h>
#include <string.h>

#include "${name}.h"

static int show(edgec_model *model, edgec_session *session, uint32_t program) {
    edgec_program_info info;
    edgec_program_get(model, program, &info);
    if (info.updates) return 0;
    for (uint32_t i = 0; i < info.binding_count; i++) {
        edgec_binding_info binding;
        void *data;
        edgec_binding_get(model, program, i, &binding);
        edgec_binding_data(session, program, i, &data);
        if (binding.slot == EDGEC_SLOT_INPUT) memset(data, 0, (size_t)binding.bytes);
        if (binding.slot == EDGEC_SLOT_SCALAR && binding.high >= binding.low) *(int32_t *)data = (int32_t)binding.high;
    }
    edgec_status status = edgec_run(session, program);
    printf("%s: %s\\n", info.name, edgec_status_text(status));
    for (uint32_t i = 0; i < info.binding_count; i++) {
        edgec_binding_info binding;
        void *data;
        edgec_binding_get(model, program, i, &binding);
        edgec_binding_data(session, program, i, &data);
        if (binding.slot != EDGEC_SLOT_OUTPUT || binding.dtype != EDGEC_F32) continue;
        printf("%s:", binding.name);
        for (uint32_t k = 0; k < binding.bytes / sizeof(float) && k < 8; k++) printf(" %g", (double)((float *)data)[k]);
        printf("\\n");
    }
    return status != EDGEC_OK;
}

int main(void) {
    edgec_model *model;
    edgec_session *session;
    edgec_model_info info;
    int failures = 0;
    edgec_status status = ${name}_open(&model, &session);
    if (status != EDGEC_OK) {
        printf("%s\\n", edgec_status_text(status));
        return 1;
    }
    edgec_model_get(model, &info);
    printf("%s: %u bytes of memory\\n", info.target, (unsigned)${NAME}_MEMORY_BYTES);
    for (uint32_t program = 0; program < info.program_count; program++) failures += show(model, session, program);
    edgec_session_close(session);
    edgec_model_close(model);
    return failures;
}
"""

README = """\
# $name for $target

C sources written by `edgec compile --emit static`. Add all but `example.c` to an application, and `edgec/` to its
include path; several models share one `edgec/`.

| file | holds |
|---|---|
| `$name.h` | sizes, numbers of programs and bindings, `${name}_open` |
| `$name.c` | the memory: one static block |
| `${name}_artifact.c` | tables and weights, constant |
| `${name}_kernels.c` | kernels and their table |
| `edgec/` | the runtime; `edgec/edgec.h` is its interface |
| `example.c` | a program that runs the model once |

    $build -Iedgec example.c $sources -o example

- Constants: $artifact bytes, beside the code. They are used in place and may stay in flash.
- Memory: $memory bytes of `.bss`, and at most $stack bytes of stack. Nothing is allocated from a heap.
- Parameters are read with `edgec_tensor_read` and set with `edgec_tensor_write`, by the names of the source model.
- An application with a clock may define `uint64_t platform_nanoseconds(void)`; only profiles ask for it.
- `-ffp-contract=off` makes results equal to the bit on all machines; without it a compiler may use fused multiply-add.
"""
