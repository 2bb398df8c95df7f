/* Just enough of ELF-64 (System V ABI, "Object Files") to know that a file may be mapped as it is. */
#include <string.h>

#include "model.h"

enum { TYPE_DYN = 3, SEGMENT_LOAD = 1, FLAG_EXECUTE = 1, FLAG_WRITE = 2, FLAG_READ = 4, SEGMENT_INTERPRETER = 3, SEGMENT_TLS = 7 };
enum { MACHINE_X86_64 = 62, MACHINE_AARCH64 = 183 };

typedef FORMAT_RECORD elf_header {
    uint8_t ident[16]; /* 7F 'E' 'L' 'F', class 64, little-endian */
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, segments, sections;
    uint32_t flags;
    uint16_t header_bytes, segment_bytes, segment_count, section_bytes, section_count, names;
} elf_header;
_Static_assert(sizeof(elf_header) == 64, "Elf64_Ehdr");

typedef FORMAT_RECORD elf_segment {
    uint32_t type, flags;
    uint64_t offset, virtual_address, physical_address, file_bytes, memory_bytes, alignment;
} elf_segment;
_Static_assert(sizeof(elf_segment) == 56, "Elf64_Phdr");

edgec_status image_check(const uint8_t *image, size_t size, uint8_t arch, size_t *bytes) {
    static const uint8_t ident[6] = {0x7F, 'E', 'L', 'F', 2, 1};
    uint16_t machine = arch == ARCH_X86_64 ? MACHINE_X86_64 : MACHINE_AARCH64;
    const elf_header *header = (const elf_header *)(const void *)image;
    size_t loaded = 0;

    if (arch != ARCH_X86_64 && arch != ARCH_AARCH64) return EDGEC_BAD_IMAGE;
    if (size < sizeof *header || memcmp(header->ident, ident, sizeof ident) != 0) return EDGEC_BAD_IMAGE;
    if (header->type != TYPE_DYN || header->machine != machine) return EDGEC_BAD_IMAGE;
    if (header->segment_bytes != sizeof(elf_segment) || header->segments % 8 != 0 || header->segments > size ||
        (size - header->segments) / sizeof(elf_segment) < header->segment_count)
        return EDGEC_BAD_IMAGE;

    const elf_segment *segments = (const elf_segment *)(const void *)(image + header->segments);
    for (uint32_t i = 0; i < header->segment_count; i++) {
        const elf_segment *s = &segments[i];
        if (s->type == SEGMENT_INTERPRETER || s->type == SEGMENT_TLS) return EDGEC_BAD_IMAGE;
        if (s->type != SEGMENT_LOAD) continue;
        if (loaded != 0 || s->offset != 0 || s->virtual_address != 0 || s->file_bytes != s->memory_bytes ||
            s->file_bytes < sizeof *header || s->file_bytes > size ||
            (s->flags & (FLAG_READ | FLAG_WRITE | FLAG_EXECUTE)) != (FLAG_READ | FLAG_EXECUTE))
            return EDGEC_BAD_IMAGE;
        loaded = (size_t)s->file_bytes;
    }
    *bytes = loaded;
    return loaded != 0 ? EDGEC_OK : EDGEC_BAD_IMAGE;
}
