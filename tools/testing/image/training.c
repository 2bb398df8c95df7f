/* Runs `infer`, then `train` for as many steps as there is data, then `infer` again; writes everything as bits. */
#include <string.h>

#include "board.h"
#include "crc32.h"
#include "image.h"
#include "model.h"

static void write_hex(uint64_t value, int digits) {
    char text[20];
    text[digits] = '\0';
    while (digits-- > 0) {
        text[digits] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
    board_write(text);
}

static void write_figure(const char *name, uint64_t value) {
    board_write(name);
    board_write(" ");
    write_hex(value, 16);
    board_write("\n");
}

static void demand(edgec_status status) {
    if (status == EDGEC_OK) return;
    board_write(edgec_status_text(status));
    board_write("\n");
    board_exit(1);
}

static const image_feed *find_feed(const char *name) {
    for (uint32_t i = 0; i < image_feed_count; i++)
        if (strcmp(image_feeds[i].name, name) == 0) return &image_feeds[i];
    return NULL;
}

static void fill(edgec_model *model, edgec_session *session, uint32_t program, uint32_t step) {
    edgec_binding_info info;
    for (uint32_t i = 0; edgec_binding_get(model, program, i, &info) == EDGEC_OK; i++) {
        if (info.slot != EDGEC_SLOT_INPUT && info.slot != EDGEC_SLOT_SCALAR) continue;
        const image_feed *feed = find_feed(info.name);
        if (feed == NULL && info.slot == EDGEC_SLOT_SCALAR && info.high >= info.low) {
            int32_t greatest = (int32_t)info.high; /* all rows count, all classes live */
            demand(edgec_input(session, program, info.name, &greatest, sizeof greatest));
            continue;
        }
        if (feed == NULL) demand(EDGEC_NO_SUCH_TENSOR);
        const uint8_t *data = (const uint8_t *)feed->data + step * feed->bytes;
        if (info.bytes > feed->bytes) demand(EDGEC_WRONG_SIZE);
        demand(edgec_input(session, program, info.name, data, (size_t)info.bytes));
    }
}

/* The bits of all results of 32 bits, row-major. */
static void write_results(edgec_model *model, edgec_session *session, uint32_t program) {
    edgec_binding_info info;
    for (uint32_t i = 0; edgec_binding_get(model, program, i, &info) == EDGEC_OK; i++) {
        void *data;
        if ((info.slot != EDGEC_SLOT_OUTPUT && info.slot != EDGEC_SLOT_LOSS) || info.dtype != EDGEC_F32) continue;
        demand(edgec_binding_data(session, program, i, &data));
        board_write(info.name);
        for (uint32_t k = 0; k < info.bytes / 4; k++) {
            uint32_t bits;
            memcpy(&bits, (uint8_t *)data + k * 4, 4);
            board_write(" ");
            write_hex(bits, 8);
        }
        board_write("\n");
    }
}

static void run(edgec_model *model, edgec_session *session, const char *name, uint32_t step) {
    uint32_t program;
    if (edgec_program_find(model, name, &program) != EDGEC_OK) return;
    fill(model, session, program, step);
    uint64_t start = board_ticks();
    demand(edgec_run(session, program));
    uint64_t ticks = board_ticks() - start;
    board_write("run ");
    write_figure(name, ticks);
    write_results(model, session, program);
}

int main(void) {
    edgec_model *model;
    edgec_session *session;
    demand(image_open(&model, &session));
    write_figure("memory", image_memory_bytes);
    write_figure("used", image_memory_used());
    run(model, session, "infer", 0);
    for (uint32_t step = 0; step < image_step_count; step++) run(model, session, "train", step);
    run(model, session, "infer", 0);

    static crc32_table table;
    crc32_init(&table);
    uint32_t sum = crc32_update(&table, 0, model->param, (size_t)model->artifact.variant->param_bytes);
    sum = crc32_update(&table, sum, model->state, (size_t)model->artifact.variant->state_bytes);
    write_figure("checksum", sum);
    edgec_session_close(session);
    edgec_model_close(model);
    demand(image_open(&model, &session)); /* closing gave everything back */
    write_figure("stack", board_stack_bytes());
    return 0;
}
