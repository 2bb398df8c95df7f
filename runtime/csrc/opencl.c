/* The OpenCL driver (1.2): kernels are built from the artifact's source where they run; one queue in order. */
#include "device.h"

#if EDGEC_DEVICES

#include <dlfcn.h>
#include <string.h>

/* From the Khronos headers: cl.h. */
enum { TYPE_CPU = 2, TYPE_ALL = -1 };
enum { DEVICE_TYPE = 0x1000, DEVICE_MAX_GROUP = 0x1004, DEVICE_MAX_ALLOCATION = 0x1010, DEVICE_MEMORY = 0x101F };
enum { READ_WRITE = 1, KERNEL_MAX_GROUP = 0x11B0, NO_DEVICE_FOUND = -1, ALLOCATION_FAILED = -4, OUT_OF_RESOURCES = -5 };
enum { MAX_PLATFORMS = 16 };

typedef struct opencl {
    device base;
    void *library;
    void *id, *context, *queue, *program;

    int32_t (*GetPlatformIDs)(uint32_t, void **, uint32_t *);
    int32_t (*GetDeviceIDs)(void *, uint64_t, uint32_t, void **, uint32_t *);
    int32_t (*GetDeviceInfo)(void *, uint32_t, size_t, void *, size_t *);
    void *(*CreateContext)(const void *, uint32_t, void *const *, void *, void *, int32_t *);
    int32_t (*ReleaseContext)(void *);
    void *(*CreateCommandQueue)(void *, void *, uint64_t, int32_t *);
    int32_t (*ReleaseCommandQueue)(void *);
    void *(*CreateProgramWithSource)(void *, uint32_t, const char *const *, const size_t *, int32_t *);
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

    uint32_t kernel_count; /* made so far */
    void *kernels[];
} opencl;

/* Everything that fails while a program runs. */
static edgec_status failure(int32_t code) {
    if (code == 0) return EDGEC_OK;
    return code == ALLOCATION_FAILED || code == OUT_OF_RESOURCES ? EDGEC_DEVICE_MEMORY : EDGEC_DEVICE_FAILED;
}

static void *object(uint64_t memory) { return (void *)(uintptr_t)memory; }

static size_t record_bytes(uint32_t kernels) { return sizeof(opencl) + kernels * sizeof(void *); }

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

static edgec_status make_kernel(opencl *cl, const artifact *a, uint32_t index) {
    const format_kernel *k = &a->kernels[index];
    int32_t code;
    size_t most = 0;
    cl->kernels[index] = cl->CreateKernel(cl->program, artifact_string(a, k->name), &code);
    if (code != 0) return EDGEC_BAD_IMAGE;
    cl->kernel_count++;
    code = cl->GetKernelWorkGroupInfo(cl->kernels[index], cl->id, KERNEL_MAX_GROUP, sizeof most, &most, NULL);
    return code == 0 && most >= k->threads ? EDGEC_OK : EDGEC_NO_DEVICE;
}

static edgec_status open_device(device *d, const artifact *a) {
    opencl *cl = (opencl *)d;
    const char *source = (const char *)a->code;
    int32_t code;
    edgec_status status = open_library(cl);
    if (status == EDGEC_OK) status = choose_device(cl);
    if (status != EDGEC_OK) return status;
    cl->context = cl->CreateContext(NULL, 1, &cl->id, NULL, NULL, &code);
    if (code != 0) return EDGEC_NO_DEVICE;
    cl->queue = cl->CreateCommandQueue(cl->context, cl->id, 0, &code);
    if (code != 0) return EDGEC_NO_DEVICE;
    cl->program = cl->CreateProgramWithSource(cl->context, 1, &source, &a->code_bytes, &code);
    if (code == 0) code = cl->BuildProgram(cl->program, 1, &cl->id, "-cl-std=CL1.2", NULL, NULL);
    if (code != 0) return EDGEC_BAD_IMAGE;
    for (uint32_t i = 0; i < a->kernel_count && status == EDGEC_OK; i++) status = make_kernel(cl, a, i);
    return status;
}

static void close_device(device *d) {
    opencl *cl = (opencl *)d;
    for (uint32_t i = 0; i < cl->kernel_count; i++) cl->ReleaseKernel(cl->kernels[i]);
    if (cl->program != NULL) cl->ReleaseProgram(cl->program);
    if (cl->queue != NULL) cl->ReleaseCommandQueue(cl->queue);
    if (cl->context != NULL) cl->ReleaseContext(cl->context);
}

/* ---- Memory. ---- */

static uint64_t free_bytes(device *d) {
    opencl *cl = (opencl *)d;
    uint64_t bytes = 0;
    return cl->GetDeviceInfo(cl->id, DEVICE_MEMORY, sizeof bytes, &bytes, NULL) == 0 ? bytes : 0;
}

static edgec_status zero_memory(device *d, device_operand at, size_t bytes) {
    opencl *cl = (opencl *)d;
    const uint8_t zero = 0;
    return failure(
        cl->EnqueueFillBuffer(cl->queue, object(at.memory), &zero, 1, at.offset, bytes, 0, NULL, NULL));
}

static edgec_status allocate(device *d, size_t bytes, uint64_t *memory) {
    opencl *cl = (opencl *)d;
    int32_t code;
    void *buffer = cl->CreateBuffer(cl->context, READ_WRITE, bytes, NULL, &code);
    if (code != 0) return EDGEC_DEVICE_MEMORY;
    *memory = (uint64_t)(uintptr_t)buffer;
    return zero_memory(d, (device_operand){*memory, 0}, bytes); /* what nobody wrote is the same in every session */
}

static void release(device *d, uint64_t memory) { ((opencl *)d)->ReleaseMemObject(object(memory)); }

static edgec_status write_memory(device *d, device_operand to, const void *data, size_t bytes) {
    opencl *cl = (opencl *)d;
    return failure(cl->EnqueueWriteBuffer(cl->queue, object(to.memory), 1, to.offset, bytes, data, 0, NULL, NULL));
}

static edgec_status read_memory(device *d, device_operand from, void *data, size_t bytes) {
    opencl *cl = (opencl *)d;
    return failure(cl->EnqueueReadBuffer(cl->queue, object(from.memory), 1, from.offset, bytes, data, 0, NULL, NULL));
}

/* ---- Running. ---- */

static edgec_status perform(device *d, const device_work *work) {
    opencl *cl = (opencl *)d;
    if (work->groups == 0) return zero_memory(d, work->operands[0], work->zeros);
    void *kernel = cl->kernels[work->kernel];
    size_t local = work->threads, global = (size_t)work->groups * work->threads;
    int32_t code = 0;
    for (uint32_t i = 0; i < work->count && code == 0; i++) {
        void *memory = object(work->operands[i].memory);
        code = cl->SetKernelArg(kernel, 2 * i, sizeof memory, &memory);
        if (code == 0) code = cl->SetKernelArg(kernel, 2 * i + 1, 8, &work->operands[i].offset);
    }
    if (code != 0) return EDGEC_DEVICE_FAILED;
    return failure(cl->EnqueueNDRangeKernel(cl->queue, kernel, 1, NULL, &global, &local, 0, NULL, NULL));
}

static edgec_status finish(device *d) { return failure(((opencl *)d)->Finish(((opencl *)d)->queue)); }

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
};

#endif
