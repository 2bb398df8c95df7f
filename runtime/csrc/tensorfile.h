/* Files of named arrays: checkpoints, and the inputs and outputs of edgec-run. ../README.md, "Tensor files". */
#ifndef EDGEC_TENSORFILE_H
#define EDGEC_TENSORFILE_H

#include "crc32.h"
#include "format.h"
#include "platform.h"

#define TENSORFILE_MAGIC "\x89" "EDGT\r\n\x1a"
#define TENSORFILE_VERSION 1u

typedef FORMAT_RECORD tensorfile_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t count; /* of entries */
    uint64_t file_bytes;
    uint8_t fingerprint[16]; /* of the artifact; zero where the file is no checkpoint */
    uint64_t step;
    uint64_t seed;
    uint32_t name_bytes;
    uint32_t reserved;
} tensorfile_header;
_Static_assert(sizeof(tensorfile_header) == 64, "header");

typedef FORMAT_RECORD tensorfile_entry {
    uint64_t offset; /* in the file */
    uint64_t bytes;
    uint32_t name; /* in the names */
    uint8_t dtype;
    uint8_t rank;
    uint8_t reserved[2];
    uint32_t shape[8];
} tensorfile_entry;
_Static_assert(sizeof(tensorfile_entry) == 56, "entry");

/* ---- Reading. ---- */

typedef struct tensorfile {
    platform_file file;
    const tensorfile_header *header;
    const tensorfile_entry *entries;
    const char *names;
} tensorfile;

/* Proves everything: bounds, sizes, checksums. `data` is aligned to EDGEC_ALIGNMENT and must outlive `f`. */
edgec_status tensorfile_read(tensorfile *f, const uint8_t *data, size_t bytes);

edgec_status tensorfile_open(tensorfile *f, const char *path);
void tensorfile_close(tensorfile *f);

static inline const char *tensorfile_name(const tensorfile *f, const tensorfile_entry *e) { return f->names + e->name; }
static inline const uint8_t *tensorfile_data(const tensorfile *f, const tensorfile_entry *e) {
    return f->file.data + e->offset;
}

/* The next entry of this name from number `from` on, around the end; NULL if there is none. */
const tensorfile_entry *tensorfile_find(const tensorfile *f, const char *name, uint32_t from);

/* ---- Writing. ---- */

typedef struct tensorfile_array {
    const char *name;
    const uint32_t *shape;
    uint64_t bytes;
    uint8_t dtype;
    uint8_t rank;
} tensorfile_array;

/* The arrays to write, so that no list of them is needed. */
typedef struct tensorfile_source {
    void *context;
    uint32_t candidates;
    /* Describes a candidate; 0: it is left out. Called several times. */
    int (*describe)(void *context, uint32_t candidate, tensorfile_array *array);
    /* Copies the next `bytes` of a candidate, row-major, a whole number of elements; from its beginning in order. */
    void (*copy)(void *context, uint32_t candidate, void *target, size_t bytes);
} tensorfile_source;

/* Writes the whole file from its beginning to its end; the caller commits. `identity` gives fingerprint, step, seed. */
edgec_status tensorfile_write(platform_writer *writer, const tensorfile_header *identity,
                              const tensorfile_source *source);

#endif
