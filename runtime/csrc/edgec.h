/* edgec: runs a `.edge` artifact, that is, a model and its training step compiled ahead of time.
 *
 *     edgec_model *model;
 *     edgec_session *session;
 *     uint32_t infer;
 *     float x[3 * 224 * 224], y[1000];
 *
 *     edgec_model_open("model.edge", NULL, &model);
 *     edgec_session_open(model, 2, &session);
 *     edgec_program_find(model, "infer", &infer);
 *     edgec_input(session, infer, "x", x, sizeof x);
 *     edgec_run(session, infer);
 *     edgec_output(session, infer, "logits", y, sizeof y);
 *     edgec_session_close(session);
 *     edgec_model_close(model);
 *
 * Every function that can fail returns an edgec_status and changes nothing when it fails, unless it says otherwise.
 * Strings that come out belong to the model and live as long as it does. Strings that go in are copied or not kept.
 *
 * Memory is allocated when a model or a session is opened, and never after.
 *
 * Threads: a model may be used by any number of threads. A session belongs to one thread at a time. Several sessions
 * may run on one model at once; a program that updates parameters, edgec_tensor_write and edgec_checkpoint_load wait
 * until they have the model to themselves. A model must outlive its sessions.
 */
#ifndef EDGEC_H
#define EDGEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define EDGEC_FORMAT_VERSION 2u /* of artifacts: this runtime reads this version and older ones */
#define EDGEC_MAX_RANK 8
#define EDGEC_MAX_NAME 4095   /* bytes of a name, without the terminator */
#define EDGEC_MAX_ARGUMENTS 24 /* pointers of a kernel */
#define EDGEC_MAX_DEVICE_ARGUMENTS 64 /* of one for a device */
#define EDGEC_ALIGNMENT 64    /* of an artifact in memory, and of everything in the arena */

/* ---- Status. The high nibble is the group. ------------------------------------------------------------------- */

typedef enum edgec_status {
    EDGEC_OK = 0x00,

    /* The file is at fault. */
    EDGEC_NOT_AN_ARTIFACT = 0x10, /* wrong magic */
    EDGEC_NEWER_FORMAT = 0x11,    /* written for a newer runtime */
    EDGEC_TRUNCATED = 0x12,       /* shorter or longer than its header says */
    EDGEC_DAMAGED = 0x13,         /* a checksum differs */
    EDGEC_MALFORMED = 0x14,       /* the checksums are right and a table contradicts itself or the limits */

    /* This machine cannot run it. */
    EDGEC_WRONG_MACHINE = 0x20,   /* no variant for this architecture */
    EDGEC_MISSING_FEATURE = 0x21, /* only variants that need CPU features which this machine lacks */
    EDGEC_NO_SUCH_TARGET = 0x22,  /* no variant of the name asked for */
    EDGEC_NO_KERNELS = 0x23,      /* the variant's kernels must be linked in, and options.kernels lacks or contradicts them */
    EDGEC_BAD_IMAGE = 0x24,       /* the code image is not what the loader, or the GPU's driver, accepts */
    EDGEC_NO_DRIVER = 0x25,       /* for a GPU, and its driver's library is not installed or too old */
    EDGEC_NO_DEVICE = 0x26,       /* the driver has no GPU that the code is for */
    EDGEC_SMALL_DEVICE = 0x27,    /* the GPU lets a kernel have too few work items or too little local memory */

    /* The system refused. */
    EDGEC_OUT_OF_MEMORY = 0x30,
    EDGEC_CANNOT_READ = 0x31,
    EDGEC_CANNOT_WRITE = 0x32,
    EDGEC_CANNOT_MAP = 0x33, /* executable memory */
    EDGEC_NO_THREADS = 0x34,
    EDGEC_DEVICE_MEMORY = 0x35, /* of a GPU; see edgec_shortage */
    EDGEC_DEVICE_FAILED = 0x36, /* a GPU's driver refused or aborted; parameters and states are undefined if a program updated them */

    /* The caller is at fault. */
    EDGEC_INVALID_ARGUMENT = 0x40,
    EDGEC_NO_SUCH_PROGRAM = 0x41,
    EDGEC_NO_SUCH_TENSOR = 0x42,
    EDGEC_WRONG_SIZE = 0x43,
    EDGEC_READ_ONLY = 0x44, /* a frozen tensor, used straight from the file */
    EDGEC_MISALIGNED = 0x45,

    /* The data of this run. */
    EDGEC_LOSS_NOT_FINITE = 0x50,    /* parameters and states are as before the step */
    EDGEC_LABEL_OUT_OF_RANGE = 0x51, /* nothing ran; see edgec_failure_get */
    EDGEC_GRADIENT_NOT_FINITE = 0x52, /* under a finite loss, where gradients are guarded; nothing was updated */

    /* Checkpoints. */
    EDGEC_NOT_A_CHECKPOINT = 0x60,
    EDGEC_CHECKPOINT_NEWER = 0x61,
    EDGEC_CHECKPOINT_DAMAGED = 0x62,
    EDGEC_CHECKPOINT_MALFORMED = 0x63, /* the checksums are right and the file contradicts itself */
    EDGEC_CHECKPOINT_MISMATCH = 0x64   /* of another graph, update scheme or optimizer */
} edgec_status;

/* One English sentence without a full stop, never NULL. */
const char *edgec_status_text(edgec_status status);

/* ---- Models. ------------------------------------------------------------------------------------------------- */

typedef struct edgec_model edgec_model;     /* the mapped artifact, and the parameters and states in RAM */
typedef struct edgec_session edgec_session; /* an arena and threads */

/* `allocate` returns memory aligned to `alignment` (a power of two, at most EDGEC_ALIGNMENT) or NULL. */
typedef struct edgec_allocator {
    void *(*allocate)(void *context, size_t bytes, size_t alignment);
    void (*release)(void *context, void *memory, size_t bytes);
    void *context;
} edgec_allocator;

/* A kernel of a statically linked variant. A name that differs from the artifact's is refused; NULL is not compared. */
typedef struct edgec_linked_kernel {
    const char *name;
    void (*function)(void); /* void k(void *p0, ..., int32_t lo, int32_t hi) */
} edgec_linked_kernel;

/* Where an artifact was refused: a section type of format.h, and the record in it (0xFFFFFFFF: all of it). */
typedef struct edgec_location {
    uint32_t section;
    uint32_t record;
} edgec_location;

/* What a model with one session needs of a GPU's memory, and what its driver says is free (OpenCL: is there). */
typedef struct edgec_shortage {
    uint64_t needed;
    uint64_t available;
} edgec_shortage;

/* Of the GPU's maker, opened at run time if they are installed. */
typedef enum edgec_library { EDGEC_CUBLASLT = 1 } edgec_library;

/* All zero is the default. Nothing that it points to is kept except the allocator's context and the kernels. */
typedef struct edgec_options {
    const char *target;                 /* the variant to use; NULL: the best that this machine can run */
    edgec_allocator allocator;          /* of models and their sessions; allocate == NULL: the C library's */
    const edgec_linked_kernel *kernels; /* for variants without a code image: the generated table */
    uint32_t kernel_count;
    edgec_location *refused; /* if not NULL, set when the status is EDGEC_DAMAGED or EDGEC_MALFORMED */
    edgec_shortage *shortage; /* if not NULL, set when the status is EDGEC_DEVICE_MEMORY */
    const char *cache; /* the folder for what a GPU's driver compiles and for measured choices; NULL: $EDGEC_CACHE or the
                          user's cache folder; "": none */
    uint32_t libraries; /* bits of edgec_library: what may stand in for kernels where it is the faster. The first opening
                           measures that and keeps it in `cache`, without which there are only kernels: so runs agree to
                           the bit */
} edgec_options;

/* Maps the file, checks all of it that the chosen variant uses, and copies what training changes into RAM.
 * The file must not be changed in place while the model is open; replacing it by rename is safe. */
edgec_status edgec_model_open(const char *path, const edgec_options *options, edgec_model **model);

/* The same from memory aligned to EDGEC_ALIGNMENT, which is used in place and must outlive the model. */
edgec_status edgec_model_open_memory(const void *data, size_t bytes, const edgec_options *options, edgec_model **model);

/* Checks all of an artifact in memory, with the variants that this machine cannot run: for compilers and tests. */
edgec_status edgec_artifact_check(const void *data, size_t bytes, edgec_location *refused);

/* All sessions must be closed. NULL is allowed. */
void edgec_model_close(edgec_model *model);

typedef struct edgec_model_info {
    const char *target;
    const uint8_t *fingerprint; /* 16 bytes: graph, update scheme and optimizer, not the target */
    uint64_t param_bytes;       /* RAM copies of parameters */
    uint64_t state_bytes;
    uint64_t arena_bytes; /* of one session: the largest program's */
    uint32_t program_count;
    uint32_t tensor_count;
} edgec_model_info;

void edgec_model_get(const edgec_model *model, edgec_model_info *info);

/* A shared section of format.h that the runtime itself does not read, as it stands in the file: for tools. Its checksum
 * is checked. `bytes` is 0 where there is none. */
edgec_status edgec_model_section(const edgec_model *model, uint32_t type, const void **data, size_t *bytes);

/* ---- Programs and their signatures. -------------------------------------------------------------------------- */

typedef enum edgec_dtype {
    EDGEC_F16 = 0,
    EDGEC_BF16 = 1,
    EDGEC_F32 = 2,
    EDGEC_F64 = 3,
    EDGEC_I8 = 4,
    EDGEC_U8 = 5,
    EDGEC_I32 = 6,
    EDGEC_I64 = 7,
    EDGEC_BOOL = 8 /* one byte, 0 or 1 */
} edgec_dtype;

typedef struct edgec_program_info {
    const char *name; /* "infer", "train", "eval", ... */
    uint64_t arena_bytes;
    uint64_t macs;
    uint32_t call_count;
    uint32_t binding_count;
    uint32_t updates; /* 1 if it writes parameters or states */
} edgec_program_info;

typedef enum edgec_slot {
    EDGEC_SLOT_INPUT = 0,
    EDGEC_SLOT_OUTPUT = 1,
    EDGEC_SLOT_SCALAR = 2, /* an input of rank 0: learning rate, ... */
    EDGEC_SLOT_LOSS = 3    /* an output of rank 0 */
} edgec_slot;

/* A named tensor of a program's signature, row-major and dense. */
typedef struct edgec_binding_info {
    const char *name;
    edgec_slot slot;
    edgec_dtype dtype;
    uint32_t rank;
    uint32_t shape[EDGEC_MAX_RANK];
    uint64_t bytes;
    int64_t low, high; /* the range of integers that edgec_run accepts; high < low: any */
    int64_t ignored;   /* one more that it accepts (no label here); `low` where there is none */
    uint32_t below;    /* 0, or 1 + the binding of a scalar that every element must be less than (live classes) */
    uint32_t count;    /* 0, or 1 + the binding of an integer output: how many slices of this output, from the first on
                          along `count_axis`, hold results (boxes found); what lies behind them has no meaning */
    uint32_t count_axis;
} edgec_binding_info;

edgec_status edgec_program_get(const edgec_model *model, uint32_t program, edgec_program_info *info);
edgec_status edgec_program_find(const edgec_model *model, const char *name, uint32_t *program);
edgec_status edgec_binding_get(const edgec_model *model, uint32_t program, uint32_t binding, edgec_binding_info *info);
edgec_status edgec_binding_find(const edgec_model *model, uint32_t program, const char *name, uint32_t *binding);

/* ---- Sessions. ----------------------------------------------------------------------------------------------- */

/* `threads` counts the caller's; 0 means as many as there are CPUs for this process. Results do not depend on it. */
edgec_status edgec_session_open(edgec_model *model, uint32_t threads, edgec_session **session);

/* NULL is allowed. */
void edgec_session_close(edgec_session *session);

/* Where a binding lies, for filling and reading without a copy. The address never changes, but the programs of a model
 * share one arena and a program may reuse the memory of its inputs: fill all inputs and scalars before every run, and
 * read outputs before anything else is filled or run. */
edgec_status edgec_binding_data(edgec_session *session, uint32_t program, uint32_t binding, void **data);

/* The same with a copy: `bytes` must be the binding's. edgec_input takes inputs and scalars, edgec_output the others. */
edgec_status edgec_input(edgec_session *session, uint32_t program, const char *name, const void *data, size_t bytes);
edgec_status edgec_output(edgec_session *session, uint32_t program, const char *name, void *data, size_t bytes);

/* Runs a program to its end. EDGEC_LABEL_OUT_OF_RANGE and EDGEC_.._NOT_FINITE leave parameters and states as they
 * were; after the latter the loss itself can be read. */
edgec_status edgec_run(edgec_session *session, uint32_t program);

/* The element that made the last edgec_run of this session return EDGEC_LABEL_OUT_OF_RANGE. */
typedef struct edgec_failure {
    uint32_t binding;
    uint64_t position; /* row-major index of the element */
    int64_t value;
} edgec_failure;

void edgec_failure_get(const edgec_session *session, edgec_failure *failure);

/* One finished call of a program. */
typedef struct edgec_profile_event {
    uint32_t program;
    uint32_t call;
    const char *kernel; /* symbol, or "guard", "zero" */
    const char *label;  /* the nodes of the source model */
    uint64_t start_ns;  /* since the program began */
    uint64_t ns;
    uint64_t macs;
    uint32_t tasks;
} edgec_profile_event;

typedef void (*edgec_profile_callback)(void *context, const edgec_profile_event *event);

/* Calls back after every call of every later run, on the caller's thread; NULL switches it off. The callback must not use
 * the model: it is locked. */
void edgec_session_profile(edgec_session *session, edgec_profile_callback callback, void *context);

/* ---- Parameters and states, by the names and in the shapes of the source model, row-major. -------------------- */

typedef enum edgec_tensor_kind { EDGEC_PARAM = 0, EDGEC_STATE = 1, EDGEC_CONSTANT = 2 } edgec_tensor_kind;

typedef struct edgec_tensor_info {
    const char *name;
    edgec_tensor_kind kind;
    edgec_dtype dtype;
    uint32_t rank;
    uint32_t shape[EDGEC_MAX_RANK];
    uint64_t bytes;
    uint32_t trained;  /* 1 if some program updates it */
    uint32_t writable; /* 1 if it lies in RAM */
} edgec_tensor_info;

edgec_status edgec_tensor_get(const edgec_model *model, uint32_t tensor, edgec_tensor_info *info);
edgec_status edgec_tensor_find(const edgec_model *model, const char *name, uint32_t *tensor);
edgec_status edgec_tensor_read(edgec_model *model, uint32_t tensor, void *data, size_t bytes);
edgec_status edgec_tensor_write(edgec_model *model, uint32_t tensor, const void *data, size_t bytes);

/* ---- Checkpoints (`.edgeckpt`): trained parameters and all states, in logical form. --------------------------- */

/* Where the caller's training loop is; kept in checkpoints, meaningless to the runtime. */
typedef struct edgec_progress {
    uint64_t step;
    uint64_t seed;
} edgec_progress;

/* Written to a temporary file beside it, synced and renamed: a failure leaves the old file. `progress` may be NULL. */
edgec_status edgec_checkpoint_save(edgec_model *model, const char *path, const edgec_progress *progress);

/* Checked completely before anything is changed. Sets `progress` unless it is NULL. */
edgec_status edgec_checkpoint_load(edgec_model *model, const char *path, edgec_progress *progress);

typedef struct edgec_checkpoint_info {
    uint8_t fingerprint[16]; /* of the artifact */
    edgec_progress progress;
    uint64_t bytes; /* of the file */
    uint32_t tensor_count;
} edgec_checkpoint_info;

/* What a checkpoint says of itself, checked as well as without its artifact possible. */
edgec_status edgec_checkpoint_get(const char *path, edgec_checkpoint_info *info);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
