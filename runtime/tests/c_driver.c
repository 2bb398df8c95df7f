/* Drives the sample artifact through edgec.h alone: driver ARTIFACT BATCH RESULT THREADS STEPS.
 *
 * BATCH holds x (64 x 8 f32) and labels (64 i64); RESULT gets y of infer, the losses of STEPS training steps, y of eval,
 * w and steps. Everything allocated goes through a counting allocator; with COUNT_MALLOC also through malloc's own name.
 * With LINKED the kernels come from a table. Exit status 1: a check failed, its line is on stderr. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgec.h"

#define CHECK(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%d: %s\n", __LINE__, #condition), exit(1)))

static int frozen; /* nothing may be allocated now */
static size_t outstanding;

#ifdef COUNT_MALLOC
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static void allowed(void) {
    if (frozen) abort();
}
void *malloc(size_t n) { return allowed(), __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return allowed(), __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return allowed(), __libc_realloc(p, n); }
int posix_memalign(void **p, size_t alignment, size_t n) {
    allowed();
    *p = __libc_memalign(alignment, n);
    return *p == NULL;
}
#endif

static void *count_allocate(void *context, size_t bytes, size_t alignment) {
    CHECK(!frozen && context == &outstanding && alignment <= EDGEC_ALIGNMENT);
    void *memory = NULL;
    outstanding += bytes;
    return posix_memalign(&memory, EDGEC_ALIGNMENT, bytes) == 0 ? memory : NULL;
}

static void count_release(void *context, void *memory, size_t bytes) {
    CHECK(context == &outstanding);
    outstanding -= bytes;
    free(memory);
}

static void *refuse_allocation(void *context, size_t bytes, size_t alignment) {
    return (void)context, (void)bytes, (void)alignment, NULL;
}

#ifdef LINKED
void sample_dense(void);
void sample_errors(void);
void sample_mean(void);
void sample_update(void);
void sample_count(void);
void sample_wide(void);
static edgec_linked_kernel linked[] = {
    {"sample_dense", sample_dense},   {"sample_errors", sample_errors}, {"sample_mean", sample_mean},
    {"sample_update", sample_update}, {"sample_count", sample_count},   {NULL, sample_wide},
};
#define TABLE .kernels = linked, .kernel_count = 6
#else
#define TABLE .kernels = NULL
#endif

static edgec_options options = {.allocator = {count_allocate, count_release, &outstanding}, TABLE};

static float x[64 * 8], y[64 * 6], w[8 * 6];
static int64_t labels[64];

static void read_batch(const char *path) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fread(x, sizeof x, 1, file) == 1 && fread(labels, sizeof labels, 1, file) == 1);
    fclose(file);
}

/* What must be refused, and must leave nothing allocated. */
static void check_refusals(const char *path) {
    edgec_model *model;
    _Alignas(EDGEC_ALIGNMENT) static const char junk[128] = "junk";
    CHECK(edgec_model_open("/no/such/file", &options, &model) == EDGEC_CANNOT_READ);
    CHECK(edgec_model_open("/", &options, &model) == EDGEC_CANNOT_READ);
    CHECK(edgec_model_open_memory(junk, sizeof junk, &options, &model) == EDGEC_NOT_AN_ARTIFACT);
    CHECK(edgec_model_open_memory(junk + 8, 64, &options, &model) == EDGEC_MISALIGNED);
    edgec_options poor = options;
    poor.allocator.allocate = refuse_allocation;
    CHECK(edgec_model_open(path, &poor, &model) == EDGEC_OUT_OF_MEMORY);
#ifdef LINKED
    edgec_linked_kernel wrong[6];
    edgec_options other = options;
    other.kernels = wrong;
    memcpy(wrong, linked, sizeof wrong);
    wrong[2].name = "sample_other";
    CHECK(edgec_model_open(path, &other, &model) == EDGEC_NO_KERNELS);
    memcpy(wrong, linked, sizeof wrong);
    wrong[5].function = NULL;
    CHECK(edgec_model_open(path, &other, &model) == EDGEC_NO_KERNELS);
    other = options;
    other.kernel_count = 5;
    CHECK(edgec_model_open(path, &other, &model) == EDGEC_NO_KERNELS);
#endif
    CHECK(outstanding == 0);
    edgec_model_close(NULL);
    edgec_session_close(NULL);
}

static void check_questions(edgec_model *model, edgec_session *session) {
    edgec_program_info program;
    edgec_binding_info binding;
    edgec_tensor_info tensor;
    edgec_model_info info;
    uint32_t index;
    void *data;
    edgec_model_get(model, &info);
    CHECK(info.program_count == 4 && info.tensor_count == 5 && info.fingerprint[15] == 15);
    CHECK(edgec_program_get(model, 4, &program) == EDGEC_NO_SUCH_PROGRAM);
    CHECK(edgec_program_find(model, "none", &index) == EDGEC_NO_SUCH_PROGRAM);
    CHECK(edgec_binding_get(model, 4, 0, &binding) == EDGEC_NO_SUCH_PROGRAM);
    CHECK(edgec_binding_get(model, 0, 2, &binding) == EDGEC_NO_SUCH_TENSOR);
    CHECK(edgec_binding_find(model, 0, "labels", &index) == EDGEC_NO_SUCH_TENSOR);
    CHECK(edgec_binding_data(session, 4, 0, &data) == EDGEC_NO_SUCH_PROGRAM);
    CHECK(edgec_binding_data(session, 0, 2, &data) == EDGEC_NO_SUCH_TENSOR);
    CHECK(edgec_binding_get(model, 1, 1, &binding) == EDGEC_OK && strcmp(binding.name, "labels") == 0);
    CHECK(binding.bytes == sizeof labels && binding.rank == 1 && binding.shape[0] == 64 && binding.high == 5);
    CHECK(edgec_tensor_get(model, 5, &tensor) == EDGEC_NO_SUCH_TENSOR);
    CHECK(edgec_tensor_get(model, 0, &tensor) == EDGEC_OK && tensor.trained && tensor.writable && tensor.rank == 2);
    CHECK(edgec_tensor_read(model, 0, w, sizeof w - 1) == EDGEC_WRONG_SIZE);
    CHECK(edgec_tensor_write(model, 0, w, sizeof w + 1) == EDGEC_WRONG_SIZE);
    CHECK(edgec_tensor_write(model, 1, w, 24) == EDGEC_READ_ONLY);
    CHECK(edgec_tensor_read(model, 5, w, 24) == EDGEC_NO_SUCH_TENSOR);
    CHECK(edgec_input(session, 0, "y", y, sizeof y) == EDGEC_NO_SUCH_TENSOR);
    CHECK(edgec_output(session, 0, "x", x, sizeof x) == EDGEC_NO_SUCH_TENSOR);
    CHECK(edgec_input(session, 0, "x", x, sizeof x - 4) == EDGEC_WRONG_SIZE);
    CHECK(edgec_run(session, 4) == EDGEC_NO_SUCH_PROGRAM);
}

/* From memory the code is copied, not mapped: the same y. */
static void check_memory(const char *path) {
    static _Alignas(EDGEC_ALIGNMENT) uint8_t artifact[1 << 17];
    static float other[64 * 6];
    edgec_model *model;
    edgec_session *session;
    edgec_location refused;
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    size_t bytes = fread(artifact, 1, sizeof artifact, file);
    fclose(file);
    CHECK(edgec_artifact_check(artifact, bytes, NULL) == EDGEC_OK);
    CHECK(edgec_model_open_memory(artifact, bytes, &options, &model) == EDGEC_OK);
    CHECK(edgec_session_open(model, 1, &session) == EDGEC_OK);
    CHECK(edgec_input(session, 0, "x", x, sizeof x) == EDGEC_OK && edgec_run(session, 0) == EDGEC_OK);
    CHECK(edgec_output(session, 0, "y", other, sizeof other) == EDGEC_OK);
    CHECK(memcmp(other, y, sizeof y) == 0);
    edgec_session_close(session);
    edgec_model_close(model);
    artifact[bytes - 1] ^= 1;
    CHECK(edgec_artifact_check(artifact, bytes, &refused) == EDGEC_DAMAGED && refused.record == UINT32_MAX);
}

enum { ROUNDS = 100 };

static void *infer_on_the_side(void *argument) {
    edgec_session *session = argument;
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(edgec_input(session, 0, "x", x, sizeof x) == EDGEC_OK);
        CHECK(edgec_run(session, 0) == EDGEC_OK);
    }
    return NULL;
}

/* Training in one session and inference in another, each with threads of its own. */
static void check_side_by_side(edgec_model *model, edgec_session *session, uint32_t threads) {
    edgec_session *other;
    pthread_t thread;
    float lr = 0.001f;
    CHECK(edgec_session_open(model, threads, &other) == EDGEC_OK);
    CHECK(pthread_create(&thread, NULL, infer_on_the_side, other) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(edgec_input(session, 1, "x", x, sizeof x) == EDGEC_OK);
        CHECK(edgec_input(session, 1, "labels", labels, sizeof labels) == EDGEC_OK);
        CHECK(edgec_input(session, 1, "lr", &lr, sizeof lr) == EDGEC_OK);
        CHECK(edgec_run(session, 1) == EDGEC_OK);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    edgec_session_close(other);
}

static void count_event(void *context, const edgec_profile_event *event) {
    *(uint64_t *)context += event->macs;
    CHECK(event->kernel != NULL && event->label != NULL);
}

int main(int argc, char **argv) {
    edgec_model *model;
    edgec_session *session, *second;
    edgec_failure failure;
    uint32_t infer, train, eval, tensor;
    uint64_t macs = 0;
    float loss, lr = 0.05f;
    int32_t steps;
    CHECK(argc == 6);
    uint32_t threads = (uint32_t)atoi(argv[4]);
    read_batch(argv[2]);
    FILE *result = fopen(argv[3], "wb");
    CHECK(result != NULL);

    check_refusals(argv[1]);
    CHECK(edgec_model_open(argv[1], &options, &model) == EDGEC_OK);
    CHECK(edgec_session_open(model, 5000, &session) == EDGEC_INVALID_ARGUMENT);
    CHECK(edgec_session_open(model, threads, &session) == EDGEC_OK);
    CHECK(edgec_session_open(model, 1, &second) == EDGEC_OK);
    CHECK(fwrite(y, 0, 0, result) == 0 && fflush(result) == 0);
    static char buffer[1 << 16];
    setvbuf(result, buffer, _IOFBF, sizeof buffer); /* or stdio would allocate its own at the first write */
    frozen = 1;

    check_questions(model, session);
    CHECK(edgec_program_find(model, "infer", &infer) == EDGEC_OK);
    CHECK(edgec_program_find(model, "train", &train) == EDGEC_OK);
    CHECK(edgec_program_find(model, "eval", &eval) == EDGEC_OK);
    CHECK(edgec_input(session, infer, "x", x, sizeof x) == EDGEC_OK);
    CHECK(edgec_run(session, infer) == EDGEC_OK);
    CHECK(edgec_output(session, infer, "y", y, sizeof y) == EDGEC_OK);
    fwrite(y, sizeof y, 1, result);
    frozen = 0;
    check_memory(argv[1]);
    frozen = 1;

    edgec_session_profile(session, count_event, &macs);
    for (int i = 0; i < atoi(argv[5]); i++) {
        CHECK(edgec_input(session, train, "x", x, sizeof x) == EDGEC_OK);
        CHECK(edgec_input(session, train, "labels", labels, sizeof labels) == EDGEC_OK);
        CHECK(edgec_input(session, train, "lr", &lr, sizeof lr) == EDGEC_OK);
        CHECK(edgec_run(session, train) == EDGEC_OK);
        CHECK(edgec_output(session, train, "loss", &loss, sizeof loss) == EDGEC_OK);
        fwrite(&loss, sizeof loss, 1, result);
        edgec_session_profile(session, NULL, NULL);
    }
    CHECK(macs == 64 * 8 * 6);

    /* In another session, which sees the updates. */
    CHECK(edgec_input(second, eval, "x", x, sizeof x) == EDGEC_OK);
    CHECK(edgec_input(second, eval, "labels", labels, sizeof labels) == EDGEC_OK);
    CHECK(edgec_run(second, eval) == EDGEC_OK);
    CHECK(edgec_output(second, eval, "y", y, sizeof y) == EDGEC_OK);
    fwrite(y, sizeof y, 1, result);

    labels[9] = 6;
    CHECK(edgec_input(second, eval, "labels", labels, sizeof labels) == EDGEC_OK);
    CHECK(edgec_run(second, eval) == EDGEC_LABEL_OUT_OF_RANGE);
    edgec_failure_get(second, &failure);
    CHECK(failure.binding == 1 && failure.position == 9 && failure.value == 6);

    CHECK(edgec_tensor_find(model, "w", &tensor) == EDGEC_OK);
    CHECK(edgec_tensor_read(model, tensor, w, sizeof w) == EDGEC_OK);
    CHECK(edgec_tensor_write(model, tensor, w, sizeof w) == EDGEC_OK);
    CHECK(edgec_tensor_read(model, tensor, w, sizeof w) == EDGEC_OK);
    fwrite(w, sizeof w, 1, result);
    CHECK(edgec_tensor_find(model, "steps", &tensor) == EDGEC_OK);
    CHECK(edgec_tensor_read(model, tensor, &steps, sizeof steps) == EDGEC_OK);
    fwrite(&steps, sizeof steps, 1, result);

    frozen = 0;
    labels[9] = 0;
    check_side_by_side(model, session, threads);
    edgec_session_close(session);
    edgec_session_close(second);
    edgec_model_close(model);
    CHECK(outstanding == 0);
    CHECK(fclose(result) == 0);
    return 0;
}
