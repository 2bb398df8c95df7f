// A plugin of qemu's user-mode emulation: how often each translated block was entered.
//
//     qemu-aarch64 -plugin block_counts.so,out=FILE PROGRAM
//
// FILE gets a line for each block: address, instructions, entries. Declarations are those of qemu's plugin interface,
// version 1; the header that has them comes with qemu's sources alone.

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_info_t;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*entered)(unsigned, void *),
                                                 int flags, void *data);
extern void qemu_plugin_register_atexit_cb(uint64_t id, void (*ended)(uint64_t, void *), void *data);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 1;

struct count {
    struct count *next;
    uint64_t address, instructions, entries;
};

static struct count *counts;
static const char *out;

static void entered(unsigned cpu, void *data) {
    (void)cpu;
    ((struct count *)data)->entries++;
}

static void translated(uint64_t id, struct qemu_plugin_tb *block) {
    (void)id;
    struct count *count = calloc(1, sizeof *count);
    if (count == NULL) {
        abort();
    }
    *count = (struct count){counts, qemu_plugin_tb_vaddr(block), qemu_plugin_tb_n_insns(block), 0};
    counts = count;
    qemu_plugin_register_vcpu_tb_exec_cb(block, entered, 0, count);
}

static void ended(uint64_t id, void *data) {
    (void)id, (void)data;
    FILE *file = fopen(out, "w");
    if (file == NULL) {
        abort();
    }
    for (const struct count *count = counts; count != NULL; count = count->next) {
        fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", count->address, count->instructions, count->entries);
    }
    fclose(file);
}

EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info_t *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = strdup(argv[i] + 4);
        }
    }
    if (out == NULL) {
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
