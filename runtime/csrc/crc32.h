/* CRC-32 as zlib computes it (ISO 3309, polynomial 0xEDB88320 reflected). */
#ifndef EDGEC_CRC32_H
#define EDGEC_CRC32_H

#include <stddef.h>
#include <stdint.h>

#include "edgec_config.h"

typedef struct crc32_table {
    uint32_t slice[EDGEC_CRC32_SLICES][256];
} crc32_table;

void crc32_init(crc32_table *table);

/* Continues from `crc`, which is 0 at the start. */
uint32_t crc32_update(const crc32_table *table, uint32_t crc, const void *data, size_t bytes);

#endif
