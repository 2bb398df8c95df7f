/* What a GPU's driver made of sources and what was measured there, in files of the user's cache folder; ../README.md, "Devices". */
#ifndef EDGEC_PROGRAM_CACHE_H
#define EDGEC_PROGRAM_CACHE_H

#include "platform.h"

enum { PROGRAM_CACHE_BYTES = 16 << 20 }; /* of a file, at most */

/* What is kept apart. Of each there are at most `files`, so that the folder stays bounded. */
typedef struct program_kind {
    const char *name;
    uint32_t files;
} program_kind;

/* Two programs of one identity are made of the same source by the same driver for the same device. */
typedef struct program_identity {
    uint64_t hash; /* of all that determines a program */
    uint64_t source_bytes;
    uint32_t source_crc32;
    uint32_t reserved;
} program_identity;

/* `words` are `count` strings that name device, driver and options. */
program_identity program_identify(const char *const *words, uint32_t count, const void *source, size_t bytes);

/* A program's binary, in `file`, for its reader to unmap. EDGEC_CANNOT_READ if there is none, or a file that is not whole. */
edgec_status program_cache_find(const char *folder, program_kind kind, const program_identity *identity,
                                platform_file *file, const uint8_t **binary, size_t *bytes);

/* Keeps a binary. What fails leaves the file as it was. */
edgec_status program_cache_keep(const char *folder, program_kind kind, const program_identity *identity,
                                const void *binary, size_t bytes);

#endif
