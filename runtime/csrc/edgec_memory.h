/* What the runtime allocates: one block for a model, one for a session. An application without a heap sets aside that
 * much and nothing more; the sources of `edgec compile --emit static` do. */
#ifndef EDGEC_MEMORY_H
#define EDGEC_MEMORY_H

#include "edgec.h"

/* A whole number of lines, so that whatever follows is aligned. */
#define EDGEC_LINES(bytes) (((size_t)(bytes) + EDGEC_ALIGNMENT - 1u) / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT)

/* The model's own fields, before its regions: 64 words, 256 bytes on a 32-bit machine. */
#define EDGEC_MODEL_FIELDS (64u * sizeof(void *))
#define EDGEC_SESSION_FIELDS EDGEC_LINES(16u * sizeof(void *))

/* edgec_model_open_memory; the counts are those of the variant that is opened. */
#define EDGEC_MODEL_BYTES(param_bytes, state_bytes, programs) \
    (EDGEC_MODEL_FIELDS + EDGEC_LINES(param_bytes) + EDGEC_LINES(state_bytes) + EDGEC_LINES(programs))

/* edgec_session_open for one thread; `arena_bytes` is the largest program's. */
#define EDGEC_SESSION_BYTES(arena_bytes, buffers) \
    (EDGEC_SESSION_FIELDS + EDGEC_LINES((buffers) * sizeof(void *)) + EDGEC_LINES(arena_bytes))

#endif
