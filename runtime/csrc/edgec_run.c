/* edgec-run: runs one program of an artifact on files; the command line and the files are in ../README.md, "edgec-run".
 * Exits 0; 1 after `error[E....]: ...` on stderr; 2 when called wrongly. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "tensorfile.h"

/* ---- Failing. ---- */

__attribute__((format(printf, 2, 3))) static _Noreturn void die(const char *code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "error[%s]: ", code);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* The same codes as in edgec/runtime/library.py; a test compares them. */
static const char *code_of(edgec_status status) {
    switch (status) {
        case EDGEC_NOT_AN_ARTIFACT: return "E0501";
        case EDGEC_TRUNCATED:
        case EDGEC_DAMAGED:
        case EDGEC_MALFORMED: return "E0502";
        case EDGEC_NEWER_FORMAT: return "E0503";
        case EDGEC_WRONG_MACHINE:
        case EDGEC_MISSING_FEATURE:
        case EDGEC_NO_SUCH_TARGET:
        case EDGEC_NO_KERNELS:
        case EDGEC_BAD_IMAGE:
        case EDGEC_NO_DRIVER:
        case EDGEC_NO_DEVICE:
        case EDGEC_SMALL_DEVICE: return "E0504";
        case EDGEC_CANNOT_WRITE: return "E0505";
        case EDGEC_NOT_A_CHECKPOINT:
        case EDGEC_CHECKPOINT_NEWER:
        case EDGEC_CHECKPOINT_DAMAGED:
        case EDGEC_CHECKPOINT_MALFORMED:
        case EDGEC_CHECKPOINT_MISMATCH: return "E0506";
        case EDGEC_CANNOT_READ: return "E0507";
        case EDGEC_NO_SUCH_TENSOR: return "E0601";
        case EDGEC_WRONG_SIZE: return "E0603";
        case EDGEC_LABEL_OUT_OF_RANGE: return "E0604";
        case EDGEC_LOSS_NOT_FINITE: return "E0605";
        case EDGEC_GRADIENT_NOT_FINITE: return "E0613";
        case EDGEC_NO_SUCH_PROGRAM: return "E0606";
        case EDGEC_OUT_OF_MEMORY:
        case EDGEC_CANNOT_MAP:
        case EDGEC_DEVICE_MEMORY:
        case EDGEC_NO_THREADS: return "E0609";
        case EDGEC_DEVICE_FAILED: return "E0608";
        case EDGEC_READ_ONLY: return "E0610";
        default: return "E0608";
    }
}

static void require(edgec_status status, const char *where) {
    if (status != EDGEC_OK) die(code_of(status), "%s: %s", where, edgec_status_text(status));
}

static void *allocate(size_t count, size_t bytes) {
    void *memory = calloc(count + 1, bytes); /* never of size 0 */
    if (memory == NULL) die("E0609", "%s", edgec_status_text(EDGEC_OUT_OF_MEMORY));
    return memory;
}

/* ---- The command line. ---- */

typedef struct command {
    const char *artifact, *program, *inputs, *outputs;
    const char *profile, *load_checkpoint, *save_checkpoint, *libraries; /* or NULL */
    uint32_t steps, threads;                                 /* threads 0: as many as there are CPUs */
} command;

static _Noreturn void die_usage(void) {
    fputs("usage: edgec-run ARTIFACT --program P --inputs IN --outputs OUT [--steps N] [--threads T]\n"
          "                 [--profile JSON] [--load-checkpoint C] [--save-checkpoint C] [--libraries cublaslt]\n", stderr);
    exit(2);
}

static uint32_t parse_count(const char *text, unsigned long least) {
    char *end;
    unsigned long count = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || count < least || count > 1000000000) die_usage();
    return (uint32_t)count;
}

static command parse(int argc, char **argv) {
    command c = {.steps = 1, .threads = 1};
    const struct {
        const char *name;
        const char **value;
    } files[] = {
        {"--program", &c.program},
        {"--inputs", &c.inputs},
        {"--outputs", &c.outputs},
        {"--profile", &c.profile},
        {"--load-checkpoint", &c.load_checkpoint},
        {"--save-checkpoint", &c.save_checkpoint},
        {"--libraries", &c.libraries},
    };
    enum { FILES = sizeof files / sizeof *files };
    if (argc < 2) die_usage();
    c.artifact = argv[1];
    for (int i = 2; i < argc; i += 2) {
        size_t known = 0;
        if (i + 1 == argc) die_usage();
        while (known < FILES && strcmp(argv[i], files[known].name) != 0) known++;
        if (known < FILES)
            *files[known].value = argv[i + 1];
        else if (strcmp(argv[i], "--steps") == 0)
            c.steps = parse_count(argv[i + 1], 1);
        else if (strcmp(argv[i], "--threads") == 0)
            c.threads = parse_count(argv[i + 1], 0);
        else
            die_usage();
    }
    if (c.program == NULL || c.inputs == NULL || c.outputs == NULL) die_usage();
    if (c.libraries != NULL && strcmp(c.libraries, "cublaslt") != 0) die_usage();
    return c;
}

/* ---- One run. ---- */

/* A binding, where it lies, and the array of IN that fills it. */
typedef struct slot {
    edgec_binding_info info;
    void *data;
    const uint8_t *source; /* of step 0; NULL for what the program writes */
    size_t stride;         /* bytes from one step's share to the next; 0: every step takes the same */
} slot;

typedef struct profile {
    edgec_profile_event *events; /* the last of every call */
    uint64_t *nanoseconds;       /* [call][step] */
    uint32_t calls, steps, step;
} profile;

typedef struct run {
    edgec_model *model;
    edgec_session *session;
    uint32_t program;
    edgec_program_info info;
    slot *slots;
    const slot *loss; /* NULL: the program has none */
    float *losses;    /* of every step */
    tensorfile inputs;
    profile profile;
} run;

static int is_filled(const slot *s) { return s->info.slot == EDGEC_SLOT_INPUT || s->info.slot == EDGEC_SLOT_SCALAR; }

static void record(void *context, const edgec_profile_event *event) {
    profile *p = context;
    p->events[event->call] = *event;
    p->nanoseconds[(size_t)event->call * p->steps + p->step] = event->ns;
}

static void open_run(run *r, const command *c) {
    edgec_shortage shortage;
    edgec_options options = {.shortage = &shortage, .libraries = c->libraries != NULL ? EDGEC_CUBLASLT : 0};
    edgec_status status = edgec_model_open(c->artifact, &options, &r->model);
    if (status == EDGEC_DEVICE_MEMORY)
        die(code_of(status), "%s: %s (%" PRIu64 " bytes are needed, %" PRIu64 " are free)", c->artifact,
            edgec_status_text(status), shortage.needed, shortage.available);
    require(status, c->artifact);
    require(edgec_session_open(r->model, c->threads, &r->session), c->artifact);
    require(edgec_program_find(r->model, c->program, &r->program), c->program);
    require(edgec_program_get(r->model, r->program, &r->info), c->program);
    r->slots = allocate(r->info.binding_count, sizeof *r->slots);
    for (uint32_t i = 0; i < r->info.binding_count; i++) {
        slot *s = &r->slots[i];
        require(edgec_binding_get(r->model, r->program, i, &s->info), c->program);
        require(edgec_binding_data(r->session, r->program, i, &s->data), c->program);
        if (s->info.slot == EDGEC_SLOT_LOSS) r->loss = s;
    }
    r->losses = allocate(c->steps, sizeof *r->losses);
    if (c->profile == NULL) return;
    r->profile.calls = r->info.call_count;
    r->profile.steps = c->steps;
    r->profile.events = allocate(r->profile.calls, sizeof *r->profile.events);
    r->profile.nanoseconds = allocate(r->profile.calls, (size_t)c->steps * sizeof *r->profile.nanoseconds);
    edgec_session_profile(r->session, record, &r->profile);
}

/* Whether the array holds `steps` shares of the binding along its first axis; a scalar's shares are an axis. */
static int holds_shares(const tensorfile_entry *e, const edgec_binding_info *b, uint64_t steps) {
    if (b->rank == 0) return e->rank == 1 && e->shape[0] == steps;
    if (e->rank != b->rank || e->shape[0] != steps * b->shape[0]) return 0;
    return memcmp(e->shape + 1, b->shape + 1, (b->rank - 1) * sizeof *b->shape) == 0;
}

static const char *shape_text(char text[128], const uint32_t *shape, uint32_t rank) {
    size_t length = 1;
    strcpy(text, "[");
    for (uint32_t i = 0; i < rank; i++)
        length += (size_t)snprintf(text + length, 128 - length, i == 0 ? "%" PRIu32 : ", %" PRIu32, shape[i]);
    strcpy(text + length, "]");
    return text;
}

static void connect_input(slot *s, const tensorfile *f, const tensorfile_entry *e, uint32_t steps) {
    static const char *const dtypes[] = {"f16", "bf16", "f32", "f64", "i8", "u8", "i32", "i64", "bool"};
    const edgec_binding_info *b = &s->info;
    char given[128], wanted[128];
    if (e->dtype != b->dtype) die("E0602", "`%s` is %s, not %s", b->name, dtypes[e->dtype], dtypes[b->dtype]);
    s->source = tensorfile_data(f, e);
    if (e->rank == b->rank && memcmp(e->shape, b->shape, b->rank * sizeof *b->shape) == 0) return;
    if (!holds_shares(e, b, steps))
        die("E0603", "`%s` has shape %s, not %s or that for each of %" PRIu32 " steps", b->name,
            shape_text(given, e->shape, e->rank), shape_text(wanted, b->shape, b->rank), steps);
    s->stride = (size_t)b->bytes;
}

/* Pairs arrays and slots; every one of both must have its partner. */
static void connect_inputs(run *r, const command *c) {
    edgec_status status = tensorfile_open(&r->inputs, c->inputs);
    if (status != EDGEC_OK)
        die("E0507", "%s: %s", c->inputs, status == EDGEC_CANNOT_READ ? "the file cannot be read" : "not a whole tensor file");
    const tensorfile *f = &r->inputs;
    for (uint32_t i = 0; i < r->info.binding_count; i++) {
        slot *s = &r->slots[i];
        if (!is_filled(s)) continue;
        const tensorfile_entry *e = tensorfile_find(f, s->info.name, 0);
        if (e == NULL) die("E0601", "%s: `%s` is missing, which program `%s` takes", c->inputs, s->info.name, c->program);
        connect_input(s, f, e, c->steps);
    }
    for (uint32_t i = 0; i < f->header->count; i++) {
        const char *name = tensorfile_name(f, &f->entries[i]);
        uint32_t binding;
        if (edgec_binding_find(r->model, r->program, name, &binding) != EDGEC_OK || !is_filled(&r->slots[binding]))
            die("E0601", "%s: program `%s` takes no `%s`", c->inputs, c->program, name);
    }
}

static _Noreturn void die_in_step(const run *r, uint32_t step, edgec_status status) {
    if (status != EDGEC_LABEL_OUT_OF_RANGE) die(code_of(status), "step %" PRIu32 ": %s", step, edgec_status_text(status));
    edgec_failure failure;
    edgec_failure_get(r->session, &failure);
    const edgec_binding_info *b = &r->slots[failure.binding].info;
    if (failure.value >= b->low && failure.value <= b->high)
        die("E0604", "step %" PRIu32 ": element %" PRIu64 " of `%s` is %" PRId64 ": it must be less than `%s`", step,
            failure.position, b->name, failure.value, r->slots[b->below - 1].info.name);
    die("E0604", "step %" PRIu32 ": element %" PRIu64 " of `%s` is %" PRId64 ", outside %" PRId64 " to %" PRId64, step,
        failure.position, b->name, failure.value, b->low, b->high);
}

static void run_steps(run *r, uint32_t steps) {
    for (uint32_t step = 0; step < steps; step++) {
        r->profile.step = step;
        for (uint32_t i = 0; i < r->info.binding_count; i++) {
            const slot *s = &r->slots[i];
            if (s->source != NULL && s->info.bytes > 0)
                memcpy(s->data, s->source + step * s->stride, (size_t)s->info.bytes);
        }
        edgec_status status = edgec_run(r->session, r->program);
        if (status != EDGEC_OK) die_in_step(r, step, status);
        if (r->loss != NULL) memcpy(&r->losses[step], r->loss->data, sizeof *r->losses);
    }
}

/* ---- What it leaves. ---- */

/* Candidates are the slots, and after them the losses. */
typedef struct results {
    const run *run;
    uint32_t steps;
    uint32_t candidate; /* that was copied from last, up to `position` */
    size_t position;
} results;

static int describe_result(void *context, uint32_t candidate, tensorfile_array *array) {
    const results *o = context;
    const run *r = o->run;
    if (candidate == r->info.binding_count) {
        *array = (tensorfile_array){"losses", &o->steps, o->steps * sizeof *r->losses, EDGEC_F32, 1};
        return r->loss != NULL;
    }
    const edgec_binding_info *b = &r->slots[candidate].info;
    *array = (tensorfile_array){b->name, b->shape, b->bytes, (uint8_t)b->dtype, (uint8_t)b->rank};
    return b->slot == EDGEC_SLOT_OUTPUT;
}

static void copy_result(void *context, uint32_t candidate, void *target, size_t bytes) {
    results *o = context;
    const run *r = o->run;
    const void *source = candidate == r->info.binding_count ? (const void *)r->losses : r->slots[candidate].data;
    if (candidate != o->candidate) o->position = 0;
    o->candidate = candidate;
    memcpy(target, (const uint8_t *)source + o->position, bytes);
    o->position += bytes;
}

static void write_outputs(const run *r, const command *c) {
    results context = {.run = r, .steps = c->steps, .candidate = FORMAT_NONE};
    tensorfile_source source = {&context, r->info.binding_count + 1, describe_result, copy_result};
    tensorfile_header identity = {.step = 0};
    platform_writer writer;
    require(platform_writer_open(&writer, c->outputs), c->outputs);
    edgec_status status = tensorfile_write(&writer, &identity, &source);
    if (status != EDGEC_OK) platform_writer_abandon(&writer);
    require(status, c->outputs);
    require(platform_writer_commit(&writer), c->outputs);
}

static void put_json(FILE *file, const char *text) {
    fputc('"', file);
    for (const unsigned char *p = (const unsigned char *)text; *p != 0; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(file, "\\%c", *p);
        else if (*p < 0x20)
            fprintf(file, "\\u%04x", *p);
        else
            fputc(*p, file);
    }
    fputc('"', file);
}

static int by_value(const void *left, const void *right) {
    uint64_t a, b;
    memcpy(&a, left, sizeof a);
    memcpy(&b, right, sizeof b);
    return (a > b) - (a < b);
}

static void write_profile(profile *p, const command *c) {
    FILE *file = fopen(c->profile, "w");
    if (file == NULL) require(EDGEC_CANNOT_WRITE, c->profile);
    fputs("{\"program\": ", file);
    put_json(file, c->program);
    fprintf(file, ", \"steps\": %" PRIu32 ", \"calls\": [", p->steps);
    for (uint32_t i = 0; i < p->calls; i++) {
        const edgec_profile_event *e = &p->events[i];
        uint64_t *sorted = p->nanoseconds + (size_t)i * p->steps;
        qsort(sorted, p->steps, sizeof *sorted, by_value);
        fputs(i == 0 ? "\n{\"kernel\": " : ",\n{\"kernel\": ", file);
        put_json(file, e->kernel);
        fputs(", \"label\": ", file);
        put_json(file, e->label);
        fprintf(file, ", \"macs\": %" PRIu64 ", \"tasks\": %" PRIu32, e->macs, e->tasks);
        fprintf(file, ", \"nanoseconds\": [%" PRIu64 ", %" PRIu64 "]}", sorted[0], sorted[p->steps / 2]);
    }
    fputs("\n]}\n", file);
    int failed = ferror(file);
    if (fclose(file) != 0 || failed) require(EDGEC_CANNOT_WRITE, c->profile);
}

int main(int argc, char **argv) {
    command c = parse(argc, argv);
    edgec_model_info model;
    edgec_progress progress = {0, 0};
    run r = {.session = NULL};
    open_run(&r, &c);
    connect_inputs(&r, &c);
    if (c.load_checkpoint != NULL)
        require(edgec_checkpoint_load(r.model, c.load_checkpoint, &progress), c.load_checkpoint);

    uint64_t began = platform_nanoseconds();
    run_steps(&r, c.steps);
    uint64_t took = platform_nanoseconds() - began;

    write_outputs(&r, &c);
    if (c.profile != NULL) write_profile(&r.profile, &c);
    if (r.info.updates) progress.step += c.steps;
    if (c.save_checkpoint != NULL)
        require(edgec_checkpoint_save(r.model, c.save_checkpoint, &progress), c.save_checkpoint);

    edgec_model_get(r.model, &model);
    printf("%s for %s: %" PRIu32 " steps in %.3f ms\n", c.program, model.target, c.steps, (double)took / 1e6);
    tensorfile_close(&r.inputs);
    edgec_session_close(r.session);
    edgec_model_close(r.model);
    return 0;
}
