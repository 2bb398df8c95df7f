/* The three readers of foreign bytes, and what damages their input. */
#ifndef EDGEC_FUZZ_READERS_H
#define EDGEC_FUZZ_READERS_H

#include <stddef.h>
#include <stdint.h>

#include "edgec.h"

/* Opens an artifact that checkpoints shall be loaded into. */
void checkpoint_reader_open(const char *artifact);

/* Each reads the bytes and, where they are accepted, uses all that they claim; kernels are never run. They abort if a
 * checkpoint that is refused has changed something. Data is copied into a block of exactly its size. */
edgec_status read_artifact(const uint8_t *data, size_t bytes, edgec_location *refused);
edgec_status read_tensors(const uint8_t *data, size_t bytes, edgec_location *refused);
edgec_status read_checkpoint(const uint8_t *data, size_t bytes, edgec_location *refused);

/* Computes all checksums anew, of whatever the bytes still describe. Checkpoints are tensor files. */
void seal_artifact(uint8_t *data, size_t bytes);
void seal_tensors(uint8_t *data, size_t bytes);

/* One kind of file: how to read it, how to seal it, and the ranges where its integers are. */
typedef struct range {
    size_t offset, bytes, record; /* record: bytes from a field to the same one of the next record */
} range;

enum { MAX_RANGES = 64 };

typedef struct format_kind {
    const char *name;
    edgec_status (*read)(const uint8_t *data, size_t bytes, edgec_location *refused);
    void (*seal)(uint8_t *data, size_t bytes);
    size_t (*ranges)(const uint8_t *data, range found[MAX_RANGES]); /* of an undamaged file */
    size_t length_offset;                                           /* of the u64 file_bytes */
} format_kind;

const format_kind *find_kind(const char *name);

/* Damages `data` in a way that `random` chooses; returns its new size, at most `capacity`. */
size_t mutate(const format_kind *kind, uint8_t *data, size_t bytes, size_t capacity, uint64_t random);

#endif
