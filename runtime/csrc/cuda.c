/* The CUDA driver API: a cubin of the artifact, one stream, programs as graphs. No runtime library. */
#include "device.h"

#if EDGEC_DEVICES

#include <dlfcn.h>
#include <string.h>

#include "cublaslt.h"

/* From the toolkit's header: cuda.h. */
enum { OUT_OF_MEMORY = 2, ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76, CAPTURE_RELAXED = 2 };

typedef struct kernel_node { /* CUDA_KERNEL_NODE_PARAMS_v2 */
    void *function;
    unsigned groups[3], threads[3], shared;
    void **arguments, **extra;
    void *kernel, *context;
} kernel_node;

typedef struct memset_node { /* CUDA_MEMSET_NODE_PARAMS */
    uint64_t at;
    size_t pitch;
    unsigned value, element_bytes;
    size_t width, height;
} memset_node;

typedef struct cuda {
    device base;
    void *library;
    int id, retained;
    void *context, *stream, *module;
    cublaslt products;

    int (*Init)(unsigned);
    int (*DeviceGetCount)(int *);
    int (*DeviceGet)(int *, int);
    int (*DeviceGetAttribute)(int *, int, int);
    int (*DeviceGetName)(char *, int, int);
    int (*DriverGetVersion)(int *);
    int (*DevicePrimaryCtxRetain)(void **, int);
    int (*DevicePrimaryCtxRelease)(int);
    int (*CtxSetCurrent)(void *);
    int (*ModuleLoadData)(void **, const void *);
    int (*ModuleUnload)(void *);
    int (*ModuleGetFunction)(void **, void *, const char *);
    int (*MemGetInfo)(size_t *, size_t *);
    int (*MemAlloc)(uint64_t *, size_t);
    int (*MemFree)(uint64_t);
    int (*MemHostRegister)(void *, size_t, unsigned);
    int (*MemHostUnregister)(void *);
    int (*MemcpyHtoDAsync)(uint64_t, const void *, size_t, void *);
    int (*MemcpyDtoHAsync)(void *, uint64_t, size_t, void *);
    int (*MemsetD8Async)(uint64_t, unsigned char, size_t, void *);
    int (*StreamCreate)(void **, unsigned);
    int (*StreamDestroy)(void *);
    int (*StreamSynchronize)(void *);
    int (*LaunchKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                        void **);
    int (*EventCreate)(void **, unsigned);
    int (*EventRecord)(void *, void *);
    int (*EventElapsedTime)(float *, void *, void *);
    int (*EventDestroy)(void *);
    int (*GraphCreate)(void **, unsigned);
    int (*GraphAddKernelNode)(void **, void *, void *const *, size_t, const kernel_node *);
    int (*GraphAddMemsetNode)(void **, void *, void *const *, size_t, const memset_node *, void *);
    int (*GraphAddChildGraphNode)(void **, void *, void *const *, size_t, void *);
    int (*StreamBeginCapture)(void *, int);
    int (*StreamEndCapture)(void *, void **);
    int (*GraphInstantiate)(void **, void *, unsigned long long);
    int (*GraphDestroy)(void *);
    int (*GraphExecDestroy)(void *);
    int (*GraphLaunch)(void *, void *);

    void *kernels[]; /* behind them: plans of products */
} cuda;

static edgec_status failure(int code) {
    if (code == 0) return EDGEC_OK;
    return code == OUT_OF_MEMORY ? EDGEC_DEVICE_MEMORY : EDGEC_DEVICE_FAILED;
}

static size_t record_bytes(const artifact *a) {
    return sizeof(cuda) + a->kernel_count * sizeof(void *) + a->product_count * sizeof(cublaslt_plan);
}

/* ---- Opening. ---- */

static edgec_status open_library(cuda *cu) {
    const struct {
        const char *name;
        void *function; /* address of the field */
    } symbols[] = {
        {"cuInit", &cu->Init},
        {"cuDeviceGetCount", &cu->DeviceGetCount},
        {"cuDeviceGet", &cu->DeviceGet},
        {"cuDeviceGetAttribute", &cu->DeviceGetAttribute},
        {"cuDeviceGetName", &cu->DeviceGetName},
        {"cuDriverGetVersion", &cu->DriverGetVersion},
        {"cuDevicePrimaryCtxRetain", &cu->DevicePrimaryCtxRetain},
        {"cuDevicePrimaryCtxRelease_v2", &cu->DevicePrimaryCtxRelease},
        {"cuCtxSetCurrent", &cu->CtxSetCurrent},
        {"cuModuleLoadData", &cu->ModuleLoadData},
        {"cuModuleUnload", &cu->ModuleUnload},
        {"cuModuleGetFunction", &cu->ModuleGetFunction},
        {"cuMemGetInfo_v2", &cu->MemGetInfo},
        {"cuMemAlloc_v2", &cu->MemAlloc},
        {"cuMemFree_v2", &cu->MemFree},
        {"cuMemHostRegister_v2", &cu->MemHostRegister},
        {"cuMemHostUnregister", &cu->MemHostUnregister},
        {"cuMemcpyHtoDAsync_v2", &cu->MemcpyHtoDAsync},
        {"cuMemcpyDtoHAsync_v2", &cu->MemcpyDtoHAsync},
        {"cuMemsetD8Async", &cu->MemsetD8Async},
        {"cuStreamCreate", &cu->StreamCreate},
        {"cuStreamDestroy_v2", &cu->StreamDestroy},
        {"cuStreamSynchronize", &cu->StreamSynchronize},
        {"cuLaunchKernel", &cu->LaunchKernel},
        {"cuEventCreate", &cu->EventCreate},
        {"cuEventRecord", &cu->EventRecord},
        {"cuEventElapsedTime", &cu->EventElapsedTime},
        {"cuEventDestroy_v2", &cu->EventDestroy},
        {"cuGraphCreate", &cu->GraphCreate},
        {"cuGraphAddKernelNode_v2", &cu->GraphAddKernelNode},
        {"cuGraphAddMemsetNode", &cu->GraphAddMemsetNode},
        {"cuGraphAddChildGraphNode", &cu->GraphAddChildGraphNode},
        {"cuStreamBeginCapture_v2", &cu->StreamBeginCapture},
        {"cuStreamEndCapture", &cu->StreamEndCapture},
        {"cuGraphInstantiateWithFlags", &cu->GraphInstantiate},
        {"cuGraphDestroy", &cu->GraphDestroy},
        {"cuGraphExecDestroy", &cu->GraphExecDestroy},
        {"cuGraphLaunch", &cu->GraphLaunch},
    };
    cu->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (cu->library == NULL) return EDGEC_NO_DRIVER;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(cu->library, symbols[i].name);
        if (address == NULL) return EDGEC_NO_DRIVER;
        memcpy(symbols[i].function, &address, sizeof address);
    }
    return cu->Init(0) == 0 ? EDGEC_OK : EDGEC_NO_DRIVER;
}

/* The first device that runs code for `capability`: the same major number, and no lower minor one. */
static edgec_status choose_device(cuda *cu, uint8_t capability) {
    int count = 0;
    if (cu->DeviceGetCount(&count) != 0) return EDGEC_NO_DEVICE;
    for (int i = 0; i < count; i++) {
        int major = 0, minor = 0;
        if (cu->DeviceGet(&cu->id, i) != 0 || cu->DeviceGetAttribute(&major, ATTRIBUTE_MAJOR, cu->id) != 0 ||
            cu->DeviceGetAttribute(&minor, ATTRIBUTE_MINOR, cu->id) != 0)
            continue;
        if (major == capability / 10 && minor >= capability % 10) return EDGEC_OK;
    }
    return EDGEC_NO_DEVICE;
}

/* The library stays open from now on: drivers leave threads behind, and some do not begin a second time. */
static edgec_status probe(const format_variant *variant) {
    cuda cu;
    memset(&cu, 0, sizeof cu);
    edgec_status status = open_library(&cu);
    if (status == EDGEC_OK) status = choose_device(&cu, variant->capability);
    return status;
}

/* The primary context, so that other libraries in the process may share what is on the device. */
static edgec_status open_device(device *d, const artifact *a) {
    cuda *cu = (cuda *)d;
    edgec_status status = open_library(cu);
    if (status == EDGEC_OK) status = choose_device(cu, a->variant->capability);
    if (status != EDGEC_OK) return status;
    int code = cu->DevicePrimaryCtxRetain(&cu->context, cu->id);
    if (code != 0) return failure(code);
    cu->retained = 1;
    code = cu->CtxSetCurrent(cu->context);
    if (code == 0) code = cu->StreamCreate(&cu->stream, 0);
    if (code != 0) return failure(code);
    code = cu->ModuleLoadData(&cu->module, a->code);
    if (code == OUT_OF_MEMORY) return EDGEC_DEVICE_MEMORY;
    for (uint32_t i = 0; i < a->kernel_count && code == 0; i++)
        code = cu->ModuleGetFunction(&cu->kernels[i], cu->module, artifact_string(a, a->kernels[i].name));
    cu->products.plans = (cublaslt_plan *)(void *)&cu->kernels[a->kernel_count];
    return code == 0 ? EDGEC_OK : EDGEC_BAD_IMAGE;
}

/* Any thread may use a model: each call makes its context that of the thread. */
static edgec_status enter(cuda *cu) { return failure(cu->CtxSetCurrent(cu->context)); }

static void close_device(device *d) {
    cuda *cu = (cuda *)d;
    if (!cu->retained) return;
    if (enter(cu) == EDGEC_OK) {
        cublaslt_close(&cu->products);
        if (cu->module != NULL) cu->ModuleUnload(cu->module);
        if (cu->stream != NULL) cu->StreamDestroy(cu->stream);
    }
    cu->DevicePrimaryCtxRelease(cu->id);
}

/* ---- Memory. ---- */

static uint64_t free_bytes(device *d) {
    cuda *cu = (cuda *)d;
    size_t left = 0, total = 0;
    return enter(cu) == EDGEC_OK && cu->MemGetInfo(&left, &total) == 0 ? left : 0;
}

static edgec_status allocate(device *d, size_t bytes, uint64_t *memory) {
    cuda *cu = (cuda *)d;
    edgec_status status = enter(cu);
    if (status == EDGEC_OK) status = failure(cu->MemAlloc(memory, bytes));
    /* What nobody wrote is the same in every session. */
    return status == EDGEC_OK ? failure(cu->MemsetD8Async(*memory, 0, bytes, cu->stream)) : status;
}

static void release(device *d, uint64_t memory) {
    cuda *cu = (cuda *)d;
    if (enter(cu) == EDGEC_OK) cu->MemFree(memory);
}

/* A refusal is no failure: copies then go through memory of the driver's. */
static void pin(device *d, void *data, size_t bytes) {
    cuda *cu = (cuda *)d;
    if (enter(cu) == EDGEC_OK) (void)cu->MemHostRegister(data, bytes, 0);
}

static void unpin(device *d, void *data) {
    cuda *cu = (cuda *)d;
    if (enter(cu) == EDGEC_OK) (void)cu->MemHostUnregister(data);
}

/* From memory that is not page-locked the driver copies before it returns. */
static edgec_status write_memory(device *d, device_operand to, const void *data, size_t bytes) {
    cuda *cu = (cuda *)d;
    edgec_status status = enter(cu);
    if (status != EDGEC_OK) return status;
    return failure(cu->MemcpyHtoDAsync(to.memory + to.offset, data, bytes, cu->stream));
}

static edgec_status finish(device *d) {
    cuda *cu = (cuda *)d;
    edgec_status status = enter(cu);
    return status == EDGEC_OK ? failure(cu->StreamSynchronize(cu->stream)) : status;
}

static edgec_status read_memory(device *d, device_operand from, void *data, size_t bytes) {
    cuda *cu = (cuda *)d;
    edgec_status status = enter(cu);
    if (status == EDGEC_OK) status = failure(cu->MemcpyDtoHAsync(data, from.memory + from.offset, bytes, cu->stream));
    return status == EDGEC_OK ? finish(d) : status;
}

/* ---- Running. ---- */

/* Points `arguments` to the addresses of a kernel's operands, which it puts into `addresses`. */
static void list_arguments(const device_work *work, uint64_t *addresses, void **arguments) {
    for (uint32_t i = 0; i < work->count; i++) {
        addresses[i] = work->operands[i].memory + work->operands[i].offset;
        arguments[i] = &addresses[i];
    }
}

/* The plan of the library's that does this work; NULL: the kernel does. */
static cublaslt_plan *plan_of(const cuda *cu, const device_work *work) {
    return work->groups == 0 ? NULL : cublaslt_find(&cu->products, work->kernel);
}

/* If that fails the kernel does it, from then on. */
static int multiply(cuda *cu, cublaslt_plan *plan, const uint64_t *addresses) {
    uint64_t rest = addresses[plan->product->result] + plan->done;
    int code = plan->rest > 0 ? cu->MemsetD8Async(rest, 0, plan->rest, cu->stream) : 0;
    if (code == 0) code = cublaslt_multiply(&cu->products, plan, addresses, cu->stream);
    if (code != 0) plan->chosen = 0;
    return code;
}

static edgec_status perform(device *d, const device_work *work) {
    cuda *cu = (cuda *)d;
    uint64_t addresses[EDGEC_MAX_DEVICE_ARGUMENTS];
    void *arguments[EDGEC_MAX_DEVICE_ARGUMENTS];
    edgec_status status = enter(cu);
    if (status != EDGEC_OK) return status;
    list_arguments(work, addresses, arguments);
    if (work->groups == 0) return failure(cu->MemsetD8Async(addresses[0], 0, work->zeros, cu->stream));
    cublaslt_plan *plan = plan_of(cu, work);
    if (plan != NULL && multiply(cu, plan, addresses) == 0) return EDGEC_OK;
    return failure(cu->LaunchKernel(cu->kernels[work->kernel], work->groups, 1, 1, work->threads, 1, 1, 0, cu->stream,
                                    arguments, NULL));
}

static edgec_status timed(device *d, const device_work *work, uint64_t *ns) {
    cuda *cu = (cuda *)d;
    void *events[2] = {NULL, NULL};
    float milliseconds;
    edgec_status status = enter(cu);
    for (int i = 0; i < 2 && status == EDGEC_OK; i++) status = failure(cu->EventCreate(&events[i], 0));
    if (status == EDGEC_OK) status = failure(cu->EventRecord(events[0], cu->stream));
    if (status == EDGEC_OK) status = perform(d, work);
    if (status == EDGEC_OK) status = failure(cu->EventRecord(events[1], cu->stream));
    if (status == EDGEC_OK) status = finish(d);
    if (status == EDGEC_OK && cu->EventElapsedTime(&milliseconds, events[0], events[1]) == 0)
        *ns = (uint64_t)(milliseconds * 1e6f);
    for (int i = 0; i < 2; i++)
        if (events[i] != NULL) cu->EventDestroy(events[i]);
    return status;
}

static edgec_status record(device *d, void **graph) {
    cuda *cu = (cuda *)d;
    edgec_status status = enter(cu);
    return status == EDGEC_OK ? failure(cu->GraphCreate(graph, 0)) : status;
}

/* What the library does on the stream becomes one node. */
static int add_product(cuda *cu, cublaslt_plan *plan, const uint64_t *addresses, void *graph,
                       void *const *earlier, uint32_t count, void **node) {
    void *part = NULL;
    int code = cu->StreamBeginCapture(cu->stream, CAPTURE_RELAXED);
    if (code != 0) return code;
    code = multiply(cu, plan, addresses);
    int ended = cu->StreamEndCapture(cu->stream, &part);
    if (code == 0) code = ended;
    if (code == 0) code = cu->GraphAddChildGraphNode(node, graph, earlier, count, part);
    if (part != NULL) cu->GraphDestroy(part);
    return code;
}

static edgec_status add(device *d, void *graph, const device_work *work, void *const *earlier, uint32_t count,
                        void **node) {
    cuda *cu = (cuda *)d;
    uint64_t addresses[EDGEC_MAX_DEVICE_ARGUMENTS];
    void *arguments[EDGEC_MAX_DEVICE_ARGUMENTS];
    list_arguments(work, addresses, arguments);
    if (work->groups == 0) {
        memset_node zeros = {addresses[0], 0, 0, 1, work->zeros, 1};
        return failure(cu->GraphAddMemsetNode(node, graph, earlier, count, &zeros, cu->context));
    }
    cublaslt_plan *plan = plan_of(cu, work);
    if (plan != NULL && add_product(cu, plan, addresses, graph, earlier, count, node) == 0) return EDGEC_OK;
    kernel_node launch = {.function = cu->kernels[work->kernel], .arguments = arguments,
                          .groups = {work->groups, 1, 1}, .threads = {work->threads, 1, 1}};
    return failure(cu->GraphAddKernelNode(node, graph, earlier, count, &launch));
}

static edgec_status recorded(device *d, void *graph, edgec_status status, void **recording) {
    cuda *cu = (cuda *)d;
    if (status == EDGEC_OK) status = failure(cu->GraphInstantiate(recording, graph, 0));
    cu->GraphDestroy(graph);
    return status;
}

static edgec_status replay(device *d, void *recording) {
    cuda *cu = (cuda *)d;
    edgec_status status = enter(cu);
    return status == EDGEC_OK ? failure(cu->GraphLaunch(recording, cu->stream)) : status;
}

static void forget(device *d, void *recording) {
    cuda *cu = (cuda *)d;
    if (enter(cu) == EDGEC_OK) cu->GraphExecDestroy(recording);
}

static void choose_libraries(device *d, const artifact *a, uint64_t (*programs)(void *context), void *context) {
    cuda *cu = (cuda *)d;
    char name[256] = "";
    int version = 0;
    if (a->product_count > 0 && enter(cu) == EDGEC_OK && cu->DeviceGetName(name, sizeof name - 1, cu->id) == 0 &&
        cu->DriverGetVersion(&version) == 0)
        cublaslt_open(&cu->products, d, a, name, version, programs, context);
}

static const char *library(device *d, uint32_t kernel) {
    return cublaslt_find(&((cuda *)d)->products, kernel) != NULL ? "cublasLt" : NULL;
}

const device_driver cuda_driver = {
    .bytes = record_bytes,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .free_bytes = free_bytes,
    .allocate = allocate,
    .release = release,
    .pin = pin,
    .unpin = unpin,
    .write = write_memory,
    .read = read_memory,
    .perform = perform,
    .finish = finish,
    .timed = timed,
    .record = record,
    .add = add,
    .recorded = recorded,
    .replay = replay,
    .forget = forget,
    .choose_libraries = choose_libraries,
    .library = library,
};

#endif
