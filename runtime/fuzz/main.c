/* Mutations of a good file: fuzz KIND FILE FIRST COUNT SEED [ARTIFACT], where ARTIFACT is what checkpoints are for.
 *
 * Each mutation is read as it is, and again with its checksums computed anew. Mutation number n depends on SEED and n alone:
 * what a report names is repeated with FIRST = n, COUNT = 1. Prints how often every status came, and for refused artifacts
 * how often from which section:
 *
 *     plain STATUS TIMES
 *     sealed STATUS TIMES
 *     section TYPE TIMES
 *
 * With EDGEC_LIBFUZZER the same readers are libFuzzer's, and its mutations are sealed: EDGEC_FUZZ_KIND and
 * EDGEC_FUZZ_ARTIFACT are the environment's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "readers.h"

#ifdef EDGEC_LIBFUZZER

static const format_kind *kind;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t capacity);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t capacity, unsigned seed);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *name = getenv("EDGEC_FUZZ_KIND"), *artifact = getenv("EDGEC_FUZZ_ARTIFACT");
    kind = find_kind(name != NULL ? name : "artifact");
    if (kind == NULL) abort();
    if (artifact != NULL) checkpoint_reader_open(artifact);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    edgec_location refused;
    kind->read(data, bytes, &refused);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t capacity, unsigned seed) {
    bytes = LLVMFuzzerMutate(data, bytes, capacity);
    uint64_t length = bytes;
    if (bytes >= kind->length_offset + sizeof length && seed % 8 != 0)
        memcpy(data + kind->length_offset, &length, sizeof length);
    if (seed % 16 != 1) kind->seal(data, bytes);
    return bytes;
}

#else

void __sanitizer_set_death_callback(void (*callback)(void));

static unsigned long current;
static void name_mutation(void) { fprintf(stderr, "mutation %lu\n", current); }

enum { EXTRA = 256, STATUSES = 256, SECTIONS = 64 };

static uint8_t *load(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) perror(path), exit(2);
    *bytes = (size_t)ftell(file);
    uint8_t *data = aligned_alloc(EDGEC_ALIGNMENT, *bytes / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT + EDGEC_ALIGNMENT);
    rewind(file);
    if (fread(data, 1, *bytes, file) != *bytes) perror(path), exit(2);
    fclose(file);
    return data;
}

static void print_counts(const char *name, const unsigned long *counts, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (counts[i] > 0) printf("%s %zu %lu\n", name, i, counts[i]);
}

int main(int argc, char **argv) {
    static unsigned long plain[STATUSES], sealed[STATUSES], sections[SECTIONS];
    const format_kind *kind = argc >= 6 ? find_kind(argv[1]) : NULL;
    if (kind == NULL) return fputs("usage: fuzz KIND FILE FIRST COUNT SEED [ARTIFACT]\n", stderr), 2;
    if (argc > 6) checkpoint_reader_open(argv[6]);
    __sanitizer_set_death_callback(name_mutation);

    size_t bytes;
    uint8_t *good = load(argv[2], &bytes);
    size_t capacity = (bytes + EXTRA) / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT + EDGEC_ALIGNMENT;
    uint8_t *data = aligned_alloc(EDGEC_ALIGNMENT, capacity);
    unsigned long first = strtoul(argv[3], NULL, 10), count = strtoul(argv[4], NULL, 10);
    uint64_t seed = strtoull(argv[5], NULL, 10);
    for (current = first; current < first + count; current++) {
        edgec_location refused = {0, 0};
        size_t size;
        uint64_t random = (seed << 40) + (current << 8);
        do {
            memcpy(data, good, bytes);
            size = mutate(kind, data, bytes, capacity, random++);
        } while (size == bytes && memcmp(data, good, bytes) == 0);
        plain[kind->read(data, size, &refused)]++;
        kind->seal(data, size);
        edgec_status status = kind->read(data, size, &refused);
        sealed[status]++;
        if (status == EDGEC_MALFORMED) sections[refused.section < SECTIONS ? refused.section : SECTIONS - 1]++;
    }
    print_counts("plain", plain, STATUSES);
    print_counts("sealed", sealed, STATUSES);
    print_counts("section", sections, SECTIONS);
    free(data);
    free(good);
    return 0;
}

#endif
