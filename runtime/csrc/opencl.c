/* The OpenCL driver (1.2): kernels are built from the artifact's source where they run, or were before; one queue in
 * order. */
#include "device.h"

#if EDGEC_DEVICES

#include <dlfcn.h>
#include <string.h>

#include "program_cache.h"

/* From the Khronos headers: cl.h. */
enum { TYPE_CPU = 2, TYPE_ALL = -1, READ_WRITE = 1, PROFILED = 2, ALLOCATION_FAILED = -4, OUT_OF_RESOURCES = -5 };
enum { DEVICE_TYPE = 0x1000, DEVICE_MAX_GROUP = 0x1004, DEVICE_MEMORY = 0x101F, DEVICE_LOCAL_MEMORY = 0x1023 };
enum { DEVICE_NAME = 0x102B, DEVICE_VENDOR = 0x102C, DRIVER_VERSION = 0x102D, DEVICE_VERSION = 0x102F };
enum { PROGRAM_BINARY_SIZES = 0x1165, PROGRAM_BINARIES = 0x1166, EVENT_START = 0x1282, EVENT_END = 0x1283 };
enum { KERNEL_MAX_GROUP = 0x11B0, KERNEL_REQUIRED_GROUP = 0x11B1, KERNEL_LOCAL_MEMORY = 0x11B2 };
enum { MAX_PLATFORMS = 16, MAX_WORD = 256 };

/* How the source may be built: with as large groups as it has kernels for, and with small ones. */
static const char *const options[] = {"-cl-std=CL1.2", "-cl-std=CL1.2 -DFEW_ITEMS"};
enum { BUILDS = sizeof options / sizeof *options };

static const program_kind kept = {"opencl", 64}; /* 1 GB at most */

typedef struct built_kernel {
    void *kernel;
    size_t items; /* of a group */
} built_kernel;

typedef struct opencl {
    device base;
    void *library;
    void *id, *context, *queue, *timed_queue, *programs[BUILDS];

    int32_t (*GetPlatformIDs)(uint32_t, void **, uint32_t *);
    int32_t (*GetDeviceIDs)(void *, uint64_t, uint32_t, void **, uint32_t *);
    int32_t (*GetDeviceInfo)(void *, uint32_t, size_t, void *, size_t *);
    void *(*CreateContext)(const void *, uint32_t, void *const *, void *, void *, int32_t *);
    int32_t (*ReleaseContext)(void *);
    void *(*CreateCommandQueue)(void *, void *, uint64_t, int32_t *);
    int32_t (*ReleaseCommandQueue)(void *);
    void *(*CreateProgramWithSource)(void *, uint32_t, const char *const *, const size_t *, int32_t *);
    void *(*CreateProgramWithBinary)(void *, uint32_t, void *const *, const size_t *, const uint8_t *const *, int32_t *,
                                     int32_t *);
    int32_t (*GetProgramInfo)(void *, uint32_t, size_t, void *, size_t *);
    int32_t (*BuildProgram)(void *, uint32_t, void *const *, const char *, void *, void *);
    int32_t (*ReleaseProgram)(void *);
    void *(*CreateKernel)(void *, const char *, int32_t *);
    int32_t (*ReleaseKernel)(void *);
    int32_t (*GetKernelWorkGroupInfo)(void *, void *, uint32_t, size_t, void *, size_t *);
    int32_t (*SetKernelArg)(void *, uint32_t, size_t, const void *);
    void *(*CreateBuffer)(void *, uint64_t, size_t, void *, int32_t *);
    int32_t (*ReleaseMemObject)(void *);
    int32_t (*EnqueueNDRangeKernel)(void *, void *, uint32_t, const size_t *, const size_t *, const size_t *, uint32_t,
                                    const void *, void *);
    int32_t (*EnqueueWriteBuffer)(void *, void *, uint32_t, size_t, size_t, const void *, uint32_t, const void *, void *);
    int32_t (*EnqueueReadBuffer)(void *, void *, uint32_t, size_t, size_t, void *, uint32_t, const void *, void *);
    int32_t (*EnqueueFillBuffer)(void *, void *, const void *, size_t, size_t, size_t, uint32_t, const void *, void *);
    int32_t (*Finish)(void *);
    int32_t (*WaitForEvents)(uint32_t, void *const *);
    int32_t (*GetEventProfilingInfo)(void *, uint32_t, size_t, void *, size_t *);
    int32_t (*ReleaseEvent)(void *);

    uint32_t kernel_count;
    built_kernel kernels[];
} opencl;

/* Everything that fails while a program runs. */
static edgec_status failure(int32_t code) {
    if (code == 0) return EDGEC_OK;
    return code == ALLOCATION_FAILED || code == OUT_OF_RESOURCES ? EDGEC_DEVICE_MEMORY : EDGEC_DEVICE_FAILED;
}

static void *object(uint64_t memory) { return (void *)(uintptr_t)memory; }

static size_t record_bytes(const artifact *a) { return sizeof(opencl) + a->kernel_count * sizeof(built_kernel); }

/* ---- Opening. ---- */

static edgec_status open_library(opencl *cl) {
    const struct {
        const char *name;
        void *function; /* address of the field */
    } symbols[] = {
        {"clGetPlatformIDs", &cl->GetPlatformIDs},
        {"clGetDeviceIDs", &cl->GetDeviceIDs},
        {"clGetDeviceInfo", &cl->GetDeviceInfo},
        {"clCreateContext", &cl->CreateContext},
        {"clReleaseContext", &cl->ReleaseContext},
        {"clCreateCommandQueue", &cl->CreateCommandQueue},
        {"clReleaseCommandQueue", &cl->ReleaseCommandQueue},
        {"clCreateProgramWithSource", &cl->CreateProgramWithSource},
        {"clCreateProgramWithBinary", &cl->CreateProgramWithBinary},
        {"clGetProgramInfo", &cl->GetProgramInfo},
        {"clBuildProgram", &cl->BuildProgram},
        {"clReleaseProgram", &cl->ReleaseProgram},
        {"clCreateKernel", &cl->CreateKernel},
        {"clReleaseKernel", &cl->ReleaseKernel},
        {"clGetKernelWorkGroupInfo", &cl->GetKernelWorkGroupInfo},
        {"clSetKernelArg", &cl->SetKernelArg},
        {"clCreateBuffer", &cl->CreateBuffer},
        {"clReleaseMemObject", &cl->ReleaseMemObject},
        {"clEnqueueNDRangeKernel", &cl->EnqueueNDRangeKernel},
        {"clEnqueueWriteBuffer", &cl->EnqueueWriteBuffer},
        {"clEnqueueReadBuffer", &cl->EnqueueReadBuffer},
        {"clEnqueueFillBuffer", &cl->EnqueueFillBuffer},
        {"clFinish", &cl->Finish},
        {"clWaitForEvents", &cl->WaitForEvents},
        {"clGetEventProfilingInfo", &cl->GetEventProfilingInfo},
        {"clReleaseEvent", &cl->ReleaseEvent},
    };
    cl->library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (cl->library == NULL) cl->library = dlopen("libOpenCL.so", RTLD_NOW | RTLD_LOCAL); /* Android's name */
    if (cl->library == NULL) return EDGEC_NO_DRIVER;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(cl->library, symbols[i].name);
        if (address == NULL) return EDGEC_NO_DRIVER;
        memcpy(symbols[i].function, &address, sizeof address);
    }
    return EDGEC_OK;
}

/* The first device that is no CPU, else the first. */
static edgec_status choose_device(opencl *cl) {
    void *platforms[MAX_PLATFORMS];
    uint32_t count = 0;
    if (cl->GetPlatformIDs(MAX_PLATFORMS, platforms, &count) != 0) return EDGEC_NO_DEVICE;
    for (uint32_t i = 0; i < count && i < MAX_PLATFORMS; i++) {
        void *id;
        uint64_t type = 0;
        if (cl->GetDeviceIDs(platforms[i], (uint64_t)(uint32_t)TYPE_ALL, 1, &id, NULL) != 0) continue;
        if (cl->GetDeviceInfo(id, DEVICE_TYPE, sizeof type, &type, NULL) != 0) continue;
        if (cl->id == NULL || !(type & TYPE_CPU)) cl->id = id;
        if (!(type & TYPE_CPU)) break;
    }
    return cl->id != NULL ? EDGEC_OK : EDGEC_NO_DEVICE;
}

/* The library stays open from now on: drivers leave threads behind, and some do not begin a second time. */
static edgec_status probe(const format_variant *variant) {
    opencl cl;
    (void)variant;
    memset(&cl, 0, sizeof cl);
    edgec_status status = open_library(&cl);
    if (status == EDGEC_OK) status = choose_device(&cl);
    return status;
}

/* A text about the device; empty if it cannot be had. */
static void ask(opencl *cl, uint32_t what, char text[MAX_WORD]) {
    if (cl->GetDeviceInfo(cl->id, what, MAX_WORD, text, NULL) != 0) text[0] = '\0';
    text[MAX_WORD - 1] = '\0';
}

static program_identity identify(opencl *cl, const artifact *a, const char *option) {
    enum { DEVICE_WORDS = 4 };
    static const uint16_t asked[DEVICE_WORDS] = {DEVICE_NAME, DEVICE_VENDOR, DRIVER_VERSION, DEVICE_VERSION};
    char texts[DEVICE_WORDS][MAX_WORD];
    const char *words[DEVICE_WORDS + 1] = {[DEVICE_WORDS] = option};
    for (int i = 0; i < DEVICE_WORDS; i++) {
        ask(cl, asked[i], texts[i]);
        words[i] = texts[i];
    }
    return program_identify(words, DEVICE_WORDS + 1, a->code, a->code_bytes);
}

/* A driver may refuse what it made itself, for reasons of its own: then there is no program. */
static void *program_of_binary(opencl *cl, const program_identity *identity, const char *option) {
    platform_file file;
    const uint8_t *binary;
    size_t bytes;
    int32_t code, taken;
    if (program_cache_find(cl->base.cache, kept, identity, &file, &binary, &bytes) != EDGEC_OK) return NULL;
    void *program = cl->CreateProgramWithBinary(cl->context, 1, &cl->id, &bytes, &binary, &taken, &code);
    platform_file_unmap(&file);
    if (code != 0) return NULL;
    if (cl->BuildProgram(program, 1, &cl->id, option, NULL, NULL) == 0) return program;
    cl->ReleaseProgram(program);
    return NULL;
}

static void keep(opencl *cl, const program_identity *identity, void *program) {
    const edgec_allocator *allocator = cl->base.allocator;
    size_t bytes = 0;
    if (cl->GetProgramInfo(program, PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) != 0 || bytes == 0) return;
    uint8_t *binary = allocator->allocate(allocator->context, bytes, 1);
    if (binary == NULL) return;
    if (cl->GetProgramInfo(program, PROGRAM_BINARIES, sizeof binary, &binary, NULL) == 0)
        (void)program_cache_keep(cl->base.cache, kept, identity, binary, bytes);
    allocator->release(allocator->context, binary, bytes);
}

static void *program_of_source(opencl *cl, const artifact *a, const char *option) {
    const char *source = (const char *)a->code;
    int32_t code;
    void *program = cl->CreateProgramWithSource(cl->context, 1, &source, &a->code_bytes, &code);
    if (code != 0) return NULL;
    if (cl->BuildProgram(program, 1, &cl->id, option, NULL, NULL) == 0) return program;
    cl->ReleaseProgram(program);
    return NULL;
}

/* Sets `items`, or leaves them 0 where no group of the kernel's fits. */
static edgec_status fit(opencl *cl, built_kernel *k, size_t most) {
    size_t required[3] = {0, 0, 0}, largest = 0;
    uint64_t needed = 0, local = 0;
    if (cl->GetKernelWorkGroupInfo(k->kernel, cl->id, KERNEL_MAX_GROUP, sizeof largest, &largest, NULL) != 0 ||
        cl->GetKernelWorkGroupInfo(k->kernel, cl->id, KERNEL_REQUIRED_GROUP, sizeof required, required, NULL) != 0 ||
        cl->GetKernelWorkGroupInfo(k->kernel, cl->id, KERNEL_LOCAL_MEMORY, sizeof needed, &needed, NULL) != 0 ||
        cl->GetDeviceInfo(cl->id, DEVICE_LOCAL_MEMORY, sizeof local, &local, NULL) != 0)
        return EDGEC_DEVICE_FAILED;
    if (needed > local) return EDGEC_OK;
    if (required[0] != 0) { /* its items wait for one another */
        k->items = required[0] <= largest ? required[0] : 0;
    } else {
        k->items = most;
        while (k->items > largest) k->items /= 2;
    }
    return EDGEC_OK;
}

/* The kernels that have none yet, of one way to build the source, as far as they fit; returns how many still lack. */
static edgec_status make_kernels(opencl *cl, const artifact *a, void *program, uint32_t *lacking) {
    edgec_status status = EDGEC_OK;
    *lacking = 0;
    for (uint32_t i = 0; i < a->kernel_count && status == EDGEC_OK; i++) {
        built_kernel *k = &cl->kernels[i];
        int32_t code;
        if (k->items != 0) continue;
        if (k->kernel != NULL) cl->ReleaseKernel(k->kernel);
        k->kernel = cl->CreateKernel(program, artifact_string(a, a->kernels[i].name), &code);
        if (code != 0) k->kernel = NULL;
        status = code == 0 ? fit(cl, k, a->kernels[i].threads) : EDGEC_BAD_IMAGE;
        *lacking += k->items == 0;
    }
    return status;
}

/* Largest groups first, where the device could have them. */
static edgec_status build(opencl *cl, const artifact *a) {
    size_t largest = 0, wanted = 0;
    uint32_t lacking = 1;
    edgec_status status = EDGEC_BAD_IMAGE;
    cl->kernel_count = a->kernel_count;
    if (cl->GetDeviceInfo(cl->id, DEVICE_MAX_GROUP, sizeof largest, &largest, NULL) != 0) return EDGEC_NO_DEVICE;
    for (uint32_t i = 0; i < a->kernel_count; i++)
        if (a->kernels[i].threads > wanted) wanted = a->kernels[i].threads;
    for (int i = largest < wanted; i < BUILDS && lacking > 0; i++) {
        program_identity identity = identify(cl, a, options[i]);
        cl->programs[i] = program_of_binary(cl, &identity, options[i]);
        if (cl->programs[i] == NULL && (cl->programs[i] = program_of_source(cl, a, options[i])) != NULL)
            keep(cl, &identity, cl->programs[i]);
        if (cl->programs[i] == NULL) continue; /* to the compiler a group may be too large */
        status = make_kernels(cl, a, cl->programs[i], &lacking);
        if (status != EDGEC_OK) return status;
    }
    return status == EDGEC_OK && lacking > 0 ? EDGEC_SMALL_DEVICE : status;
}

static edgec_status open_device(device *d, const artifact *a) {
    opencl *cl = (opencl *)d;
    int32_t code;
    edgec_status status = open_library(cl);
    if (status == EDGEC_OK) status = choose_device(cl);
    if (status != EDGEC_OK) return status;
    cl->context = cl->CreateContext(NULL, 1, &cl->id, NULL, NULL, &code);
    if (code != 0) return EDGEC_NO_DEVICE;
    cl->queue = cl->CreateCommandQueue(cl->context, cl->id, 0, &code);
    return code == 0 ? build(cl, a) : EDGEC_NO_DEVICE;
}

static void close_device(device *d) {
    opencl *cl = (opencl *)d;
    for (uint32_t i = 0; i < cl->kernel_count; i++)
        if (cl->kernels[i].kernel != NULL) cl->ReleaseKernel(cl->kernels[i].kernel);
    for (int i = 0; i < BUILDS; i++)
        if (cl->programs[i] != NULL) cl->ReleaseProgram(cl->programs[i]);
    if (cl->timed_queue != NULL) cl->ReleaseCommandQueue(cl->timed_queue);
    if (cl->queue != NULL) cl->ReleaseCommandQueue(cl->queue);
    if (cl->context != NULL) cl->ReleaseContext(cl->context);
}

/* ---- Memory. ---- */

static uint64_t free_bytes(device *d) {
    opencl *cl = (opencl *)d;
    uint64_t bytes = 0;
    return cl->GetDeviceInfo(cl->id, DEVICE_MEMORY, sizeof bytes, &bytes, NULL) == 0 ? bytes : 0;
}

static edgec_status zero_memory(opencl *cl, void *queue, device_operand at, size_t bytes, void **event) {
    const uint8_t zero = 0;
    return failure(cl->EnqueueFillBuffer(queue, object(at.memory), &zero, 1, at.offset, bytes, 0, NULL, event));
}

static edgec_status allocate(device *d, size_t bytes, uint64_t *memory) {
    opencl *cl = (opencl *)d;
    int32_t code;
    void *buffer = cl->CreateBuffer(cl->context, READ_WRITE, bytes, NULL, &code);
    if (code != 0) return EDGEC_DEVICE_MEMORY;
    *memory = (uint64_t)(uintptr_t)buffer;
    /* What nobody wrote is the same in every session. */
    return zero_memory(cl, cl->queue, (device_operand){*memory, 0}, bytes, NULL);
}

static void release(device *d, uint64_t memory) { ((opencl *)d)->ReleaseMemObject(object(memory)); }

static edgec_status write_memory(device *d, device_operand to, const void *data, size_t bytes) {
    opencl *cl = (opencl *)d;
    return failure(cl->EnqueueWriteBuffer(cl->queue, object(to.memory), 0, to.offset, bytes, data, 0, NULL, NULL));
}

static edgec_status read_memory(device *d, device_operand from, void *data, size_t bytes) {
    opencl *cl = (opencl *)d;
    return failure(cl->EnqueueReadBuffer(cl->queue, object(from.memory), 0, from.offset, bytes, data, 0, NULL, NULL));
}

/* ---- Running. ---- */

/* `event`: NULL, or what is to be waited for and released. */
static edgec_status enqueue(opencl *cl, void *queue, const device_work *work, void **event) {
    if (work->groups == 0) return zero_memory(cl, queue, work->operands[0], work->zeros, event);
    const built_kernel *k = &cl->kernels[work->kernel];
    size_t global = work->groups * k->items;
    int32_t code = 0;
    for (uint32_t i = 0; i < work->count && code == 0; i++) {
        void *memory = object(work->operands[i].memory);
        code = cl->SetKernelArg(k->kernel, 2 * i, sizeof memory, &memory);
        if (code == 0) code = cl->SetKernelArg(k->kernel, 2 * i + 1, 8, &work->operands[i].offset);
    }
    if (code != 0) return EDGEC_DEVICE_FAILED;
    return failure(cl->EnqueueNDRangeKernel(queue, k->kernel, 1, NULL, &global, &k->items, 0, NULL, event));
}

static edgec_status perform(device *d, const device_work *work) {
    return enqueue((opencl *)d, ((opencl *)d)->queue, work, NULL);
}

static edgec_status finish(device *d) { return failure(((opencl *)d)->Finish(((opencl *)d)->queue)); }

/* In a queue of its own, since one that takes times may be slower. */
static edgec_status timed(device *d, const device_work *work, uint64_t *ns) {
    opencl *cl = (opencl *)d;
    uint64_t start, end;
    void *event;
    int32_t code = 0;
    if (cl->timed_queue == NULL) cl->timed_queue = cl->CreateCommandQueue(cl->context, cl->id, PROFILED, &code);
    if (code != 0) return EDGEC_DEVICE_FAILED;
    edgec_status status = finish(d);
    if (status == EDGEC_OK) status = enqueue(cl, cl->timed_queue, work, &event);
    if (status != EDGEC_OK) return status;
    status = failure(cl->WaitForEvents(1, &event));
    if (cl->GetEventProfilingInfo(event, EVENT_START, sizeof start, &start, NULL) == 0 &&
        cl->GetEventProfilingInfo(event, EVENT_END, sizeof end, &end, NULL) == 0 && end > start)
        *ns = end - start;
    cl->ReleaseEvent(event);
    return status;
}

const device_driver opencl_driver = {
    .bytes = record_bytes,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .free_bytes = free_bytes,
    .allocate = allocate,
    .release = release,
    .write = write_memory,
    .read = read_memory,
    .perform = perform,
    .finish = finish,
    .timed = timed,
};

#endif
