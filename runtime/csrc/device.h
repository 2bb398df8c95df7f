/* A device: a GPU that runs kernels in memory of its own. A driver's library is opened when a model needs it; nothing of
 * its development kit is. ../README.md, "Devices".
 *
 * Between the runtime and a driver lies `device_driver`, which knows memory and launches; device.c has all that they have
 * in common: where parameters are, what is copied when, guards, recordings. */
#ifndef EDGEC_DEVICE_H
#define EDGEC_DEVICE_H

#include "model.h"

static inline int is_device(uint8_t arch) { return arch == ARCH_CUDA || arch == ARCH_OPENCL; }

/* Begins every driver's own record, which lies in one block with it. */
typedef struct device {
    const struct device_driver *driver;
    size_t allocation;
    const edgec_allocator *allocator;
    const char *cache; /* while it is opened: as of edgec_options */
} device;

/* One pointer of a kernel. */
typedef struct device_operand {
    uint64_t memory; /* a driver's name for what it allocated */
    uint64_t offset; /* bytes */
} device_operand;

/* A launch, or zeros. */
typedef struct device_work {
    uint32_t kernel;
    uint32_t groups; /* 0: zeros behind the first operand */
    uint32_t threads;
    uint32_t count;
    const device_operand *operands;
    size_t zeros; /* bytes */
} device_work;

/* Everything is done in the order of the calls. All but `open` and `probe` are for a model's lock to serialise. */
typedef struct device_driver {
    size_t (*bytes)(const artifact *a); /* of a record */

    /* Whether a variant could be opened here: EDGEC_OK, EDGEC_NO_DRIVER or EDGEC_NO_DEVICE. */
    edgec_status (*probe)(const format_variant *variant);

    /* The library, a device, the artifact's code, all its kernels. The record is zero; `close` follows also if it fails. */
    edgec_status (*open)(device *d, const artifact *a);
    void (*close)(device *d);

    uint64_t (*free_bytes)(device *d); /* that a model and a session may have; may only be what is built in */
    edgec_status (*allocate)(device *d, size_t bytes, uint64_t *memory);
    void (*release)(device *d, uint64_t memory);

    /* Host memory between which and the device much is copied; only faster. NULL where that makes no difference. */
    void (*pin)(device *d, void *data, size_t bytes);
    void (*unpin)(device *d, void *data);

    /* All of these may be done later; `finish` waits for them. Until then `data` must not change or be read. */
    edgec_status (*write)(device *d, device_operand to, const void *data, size_t bytes);
    edgec_status (*read)(device *d, device_operand from, void *data, size_t bytes);
    edgec_status (*perform)(device *d, const device_work *work);
    edgec_status (*finish)(device *d);

    /* `perform` and `finish`; sets `ns` to what the device took for it, by its own clock. Leaves `ns` if that is unknown. */
    edgec_status (*timed)(device *d, const device_work *work, uint64_t *ns);

    /* Work that is kept to be done again and again, each piece when those it names as earlier are done and perhaps
     * beside others. `recorded` ends what `record` began, also if something failed: then there is no recording. NULL
     * where a driver cannot. */
    edgec_status (*record)(device *d, void **graph);
    edgec_status (*add)(device *d, void *graph, const device_work *work, void *const *earlier, uint32_t count,
                        void **node);
    edgec_status (*recorded)(device *d, void *graph, edgec_status status, void **recording);
    edgec_status (*replay)(device *d, void *recording);
    void (*forget)(device *d, void *recording);

    /* Both NULL where a driver has none. Lets those libraries stand in for kernels that are the faster alone and make all
     * programs faster, which `programs` times as they are: nanoseconds, UINT64_MAX if they cannot be run. The device
     * works, and what programs need is there. */
    void (*choose_libraries)(device *d, const artifact *a, uint64_t (*programs)(void *context), void *context);
    /* That does what a kernel is for: its name; NULL: none does. */
    const char *(*library)(device *d, uint32_t kernel);
} device_driver;

extern const device_driver cuda_driver, opencl_driver;

enum { DEVICE_RECORDED = 1024 }; /* calls of one recording at most */

/* A session's part. */
typedef struct device_session {
    uint64_t arena;
    void **recordings; /* by call: of those that begin there and end at a guard or with the program */
    void *host; /* what the application fills and reads */
    size_t host_bytes;
    void *notes;       /* while something is recorded: `device_notes_bytes` */
} device_session;

/* For recording any of these programs. */
static inline size_t device_notes_bytes(const artifact *a) {
    size_t calls = 0;
    for (uint32_t i = 0; i < a->program_count; i++)
        if (a->programs[i].call_count > calls) calls = a->programs[i].call_count;
    if (calls > DEVICE_RECORDED) calls = DEVICE_RECORDED;
    return calls * (2 * sizeof(void *) + (calls + 31) / 32 * sizeof(uint32_t));
}

/* Called after each call of a program that is profiled. */
typedef void (*device_observer)(void *context, uint32_t call, uint64_t started_ns, uint64_t ns);

#if EDGEC_DEVICES

/* As `probe`. */
edgec_status device_probe(const format_variant *variant);

/* Takes the variant's code and the model's regions to a device. */
edgec_status device_open(edgec_model *model, const edgec_options *options);
void device_close(edgec_model *model);

/* The model's regions on the host are made those of the device. The model is locked for writing. */
edgec_status device_fetch(edgec_model *model);
/* What the host has changed in a region goes to the device. The same lock. */
edgec_status device_push(edgec_model *model, uint8_t region, uint64_t offset, size_t bytes);

edgec_status device_session_open(edgec_model *model, device_session *session);
void device_session_close(edgec_model *model, device_session *session);

/* Inputs to the device, the program, outputs back. `addresses` are those of buffers that are bindings, on the host. The
 * model is locked for writing. */
edgec_status device_run(edgec_model *model, device_session *session, void *const *addresses, uint32_t program,
                        device_observer observer, void *context);

/* Nanoseconds that a replay takes: the median of some. UINT64_MAX if it fails. */
uint64_t device_duration(device *d, void *recording);

/* What a profile calls a kernel: by its own name, or by that of the library that stands in for it. */
const char *device_kernel_name(const edgec_model *model, uint32_t kernel);

#else

static inline edgec_status device_probe(const format_variant *v) { return (void)v, EDGEC_NO_DRIVER; }
static inline edgec_status device_open(edgec_model *m, const edgec_options *o) { return (void)m, (void)o, EDGEC_NO_DRIVER; }
static inline void device_close(edgec_model *m) { (void)m; }
static inline edgec_status device_fetch(edgec_model *m) { return (void)m, EDGEC_OK; }
static inline edgec_status device_push(edgec_model *m, uint8_t region, uint64_t offset, size_t bytes) {
    return (void)m, (void)region, (void)offset, (void)bytes, EDGEC_OK;
}
static inline edgec_status device_session_open(edgec_model *m, device_session *s) {
    return (void)m, (void)s, EDGEC_NO_DRIVER;
}
static inline void device_session_close(edgec_model *m, device_session *s) { (void)m, (void)s; }
static inline edgec_status device_run(edgec_model *m, device_session *s, void *const *addresses, uint32_t program,
                                      device_observer observer, void *context) {
    return (void)m, (void)s, (void)addresses, (void)program, (void)observer, (void)context, EDGEC_NO_DRIVER;
}
static inline const char *device_kernel_name(const edgec_model *m, uint32_t kernel) {
    return artifact_string(&m->artifact, m->artifact.kernels[kernel].name);
}

#endif
#endif
