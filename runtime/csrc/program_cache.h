/* What a GPU's driver made of sources, in files of the user's cache folder; ../README.md, "Devices". */
#ifndef EDGEC_PROGRAM_CACHE_H
#define EDGEC_PROGRAM_CACHE_H

#include "platform.h"

enum { PROGRAM_CACHE_FILES = 64, PROGRAM_CACHE_BYTES = 16 << 20 }; /* at most so many, each of at most so much */

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
edgec_status program_cache_find(const char *folder, const program_identity *identity, platform_file *file,
                                const uint8_t **binary, size_t *bytes);

/* Keeps a binary if that is possible. */
void program_cache_keep(const char *folder, const program_identity *identity, const uint8_t *binary, size_t bytes);

#endif
