/* Each program has one file that may hold it, of a fixed number of names: so the folder stays bounded without being
 * searched, and a program that takes another's place costs that one a compilation. */
#include "program_cache.h"

#include "device.h"

#if EDGEC_DEVICES

#include <stdio.h>
#include <string.h>

#include "crc32.h"

#define MAGIC "\x89" "EDGP\r\n\x1a"

typedef struct header {
    uint8_t magic[8];
    program_identity identity;
    uint64_t bytes; /* of the binary, which follows */
    uint32_t crc32; /* of it */
    uint32_t reserved;
} header;
_Static_assert(sizeof(header) == 48, "header");

static uint32_t checksum(const void *data, size_t bytes) {
    crc32_table table;
    crc32_init(&table);
    return crc32_update(&table, 0, data, bytes);
}

/* FNV-1a, 64 bits. */
static uint64_t hashed(uint64_t hash, const void *data, size_t bytes) {
    const uint8_t *p = data;
    for (; bytes > 0; bytes--) hash = (hash ^ *p++) * 0x100000001B3u;
    return hash;
}

program_identity program_identify(const char *const *words, uint32_t count, const void *source, size_t bytes) {
    uint64_t hash = hashed(0xCBF29CE484222325u, source, bytes);
    for (uint32_t i = 0; i < count; i++) hash = hashed(hash, words[i], strlen(words[i]) + 1);
    return (program_identity){hash, bytes, checksum(source, bytes), 0};
}

static edgec_status locate(char *path, const char *folder, program_kind kind, const program_identity *identity) {
    char name[32];
    snprintf(name, sizeof name, "%s-%02u.program", kind.name, (unsigned)(identity->hash % kind.files));
    return platform_cache_path(path, folder, name);
}

edgec_status program_cache_find(const char *folder, program_kind kind, const program_identity *identity,
                                platform_file *file, const uint8_t **binary, size_t *bytes) {
    char path[PLATFORM_MAX_PATH];
    header h;
    edgec_status status = locate(path, folder, kind, identity);
    if (status == EDGEC_OK) status = platform_file_map(path, file);
    if (status != EDGEC_OK) return status;
    if (file->bytes > sizeof h) {
        memcpy(&h, file->data, sizeof h);
        *binary = file->data + sizeof h;
        *bytes = file->bytes - sizeof h;
        if (memcmp(h.magic, MAGIC, sizeof h.magic) == 0 && memcmp(&h.identity, identity, sizeof *identity) == 0 &&
            h.bytes == *bytes && h.crc32 == checksum(*binary, *bytes))
            return EDGEC_OK;
    }
    platform_file_unmap(file);
    return EDGEC_CANNOT_READ;
}

edgec_status program_cache_keep(const char *folder, program_kind kind, const program_identity *identity,
                                const void *binary, size_t bytes) {
    char path[PLATFORM_MAX_PATH];
    platform_writer writer;
    header h = {MAGIC, *identity, bytes, checksum(binary, bytes), 0};
    if (bytes > PROGRAM_CACHE_BYTES) return EDGEC_CANNOT_WRITE;
    edgec_status status = locate(path, folder, kind, identity);
    if (status == EDGEC_OK) status = platform_writer_open(&writer, path);
    if (status != EDGEC_OK) return status;
    status = platform_writer_write(&writer, &h, sizeof h);
    if (status == EDGEC_OK) status = platform_writer_write(&writer, binary, bytes);
    if (status == EDGEC_OK) return platform_writer_commit(&writer);
    platform_writer_abandon(&writer);
    return status;
}

#endif
