/* Slicing: M. Kounavis and F. Berry, "A Systematic Approach to Building High Performance Software-based CRC Generators",
 * ISCC 2005. The tables are computed by whoever needs them, so that none take room in the library. */
#include "crc32.h"

#include <string.h>

void crc32_init(crc32_table *table) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        table->slice[0][byte] = crc;
    }
    for (int slice = 1; slice < EDGEC_CRC32_SLICES; slice++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = table->slice[slice - 1][byte];
            table->slice[slice][byte] = (crc >> 8) ^ table->slice[0][crc & 0xFFu];
        }
    }
}

uint32_t crc32_update(const crc32_table *table, uint32_t crc, const void *data, size_t bytes) {
    const uint8_t *p = data;
    crc = ~crc;
#if EDGEC_CRC32_SLICES == 8
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= crc;
        crc = table->slice[7][low & 0xFFu] ^ table->slice[6][low >> 8 & 0xFFu] ^ table->slice[5][low >> 16 & 0xFFu] ^
              table->slice[4][low >> 24] ^ table->slice[3][high & 0xFFu] ^ table->slice[2][high >> 8 & 0xFFu] ^
              table->slice[1][high >> 16 & 0xFFu] ^ table->slice[0][high >> 24];
    }
#endif
    for (; bytes > 0; bytes--, p++) crc = (crc >> 8) ^ table->slice[0][(crc ^ *p) & 0xFFu];
    return ~crc;
}
