/* Damage that is likelier than noise to get past the first check: most of it changes one integer of a table. */
#include <string.h>

#include "crc32.h"
#include "format.h"
#include "readers.h"
#include "tensorfile.h"

/* ---- Where the integers are. ---- */

static size_t artifact_ranges(const uint8_t *data, range found[MAX_RANGES]) {
    static const uint8_t records[] = {[SECTION_STORAGES] = sizeof(format_storage),
                                      [SECTION_TENSORS] = sizeof(format_tensor),
                                      [SECTION_VARIANTS] = sizeof(format_variant),
                                      [SECTION_PLACEMENTS] = sizeof(format_placement),
                                      [SECTION_BUFFERS] = sizeof(format_buffer),
                                      [SECTION_KERNELS] = sizeof(format_kernel),
                                      [SECTION_ARGUMENTS] = sizeof(format_argument),
                                      [SECTION_PROGRAMS] = sizeof(format_program),
                                      [SECTION_CALLS] = sizeof(format_call),
                                      [SECTION_OPERANDS] = sizeof(format_operand),
                                      [SECTION_BINDINGS] = sizeof(format_binding),
                                      [SECTION_CODE] = 64};
    const format_header *h = (const void *)data;
    const format_section *s = (const void *)(data + sizeof *h);
    size_t count = 0;
    found[count++] = (range){0, sizeof *h, sizeof *h};
    found[count++] = (range){sizeof *h, h->section_count * sizeof *s, sizeof *s};
    for (uint32_t i = 0; i < h->section_count && count < MAX_RANGES; i++) {
        if (s[i].type >= sizeof records || records[s[i].type] == 0 || s[i].bytes == 0) continue;
        /* Of the image only the ELF header and the program headers. */
        size_t size = s[i].type == SECTION_CODE ? 64 + 4 * 56 : (size_t)s[i].bytes;
        found[count++] = (range){(size_t)s[i].offset, size, records[s[i].type]};
    }
    return count;
}

static size_t tensor_ranges(const uint8_t *data, range found[MAX_RANGES]) {
    const tensorfile_header *h = (const void *)data;
    size_t entries = h->count * sizeof(tensorfile_entry);
    found[0] = (range){0, sizeof *h, sizeof *h};
    found[1] = (range){sizeof *h, entries, sizeof(tensorfile_entry)};
    found[2] = (range){sizeof *h + entries, h->name_bytes, 1};
    return 3;
}

/* ---- Sealing. ---- */

static uint32_t sum_of(const void *data, size_t bytes) {
    static crc32_table table;
    if (table.slice[0][1] == 0) crc32_init(&table);
    return crc32_update(&table, 0, data, bytes);
}

void seal_artifact(uint8_t *data, size_t bytes) {
    if (bytes < sizeof(format_header)) return;
    format_header *h = (void *)data;
    format_section *s = (void *)(data + sizeof *h);
    uint32_t count = h->section_count;
    if (count > (bytes - sizeof *h) / sizeof *s) count = 0;
    for (uint32_t i = 0; i < count; i++)
        if (s[i].offset <= bytes && s[i].bytes <= bytes - s[i].offset)
            s[i].crc32 = sum_of(data + s[i].offset, (size_t)s[i].bytes);
    h->sections_crc32 = sum_of(s, count * sizeof *s);
    h->header_crc32 = sum_of(h, sizeof *h - sizeof h->header_crc32);
}

void seal_tensors(uint8_t *data, size_t bytes) {
    enum { SUM = sizeof(uint32_t) };
    const tensorfile_header *h = (const void *)data;
    if (bytes < sizeof *h + 2 * SUM) return;
    uint64_t head = sizeof *h + (uint64_t)h->count * sizeof(tensorfile_entry) + h->name_bytes;
    if (head > bytes - 2 * SUM) return;
    uint32_t sum = sum_of(data, (size_t)head);
    memcpy(data + head, &sum, SUM);
    head += SUM;
    sum = sum_of(data + head, bytes - (size_t)head - SUM);
    memcpy(data + bytes - SUM, &sum, SUM);
}

/* ---- Mutations. ---- */

/* splitmix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
static uint64_t next(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static size_t below(uint64_t *state, size_t limit) { return limit == 0 ? 0 : (size_t)(next(state) % limit); }

static uint64_t interesting(uint64_t *state, uint64_t old, size_t bytes) {
    static const uint64_t values[] = {
        0, 1, 2, 3, 4, 7, 8, 9, 16, 23, 24, 25, 63, 64, 65, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000,
        0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000,
        0xFFFFFFFFFFFFFFC0, 0xFFFFFFFFFFFFFFFF,
    };
    static const uint64_t deltas[] = {1, 2, 4, 8, 16, 56, 64, 128, 4096};
    uint64_t delta = deltas[below(state, sizeof deltas / sizeof *deltas)];
    switch (below(state, 6)) {
        case 0: return old + delta;
        case 1: return old - delta;
        case 2: return bytes - delta * below(state, 2);
        case 3: return old << (1 + below(state, 16));
        case 4: return next(state) >> below(state, 64);
        default: return values[below(state, sizeof values / sizeof *values)];
    }
}

/* One integer of a record: another value, its neighbour's, or swapped with it. */
static void edit_field(const range *r, uint8_t *data, size_t bytes, uint64_t *state) {
    static const size_t widths[] = {1, 4, 4, 8};
    size_t width = widths[below(state, 4)];
    if (r->bytes < width) return;
    size_t place = below(state, r->bytes / width) * width;
    size_t same = (place + r->record * (1 + below(state, 3))) % r->bytes; /* of another record */
    uint8_t *field = data + r->offset + place;
    uint8_t *other = data + r->offset + (same + width <= r->bytes ? same : place);
    uint64_t value = 0, neighbour = 0;
    memcpy(&value, field, width);
    memcpy(&neighbour, other, width);
    switch (below(state, 6)) {
        case 0: memcpy(other, &value, width); break;
        case 1:
            memcpy(other, &value, width);
            memcpy(field, &neighbour, width);
            break;
        default:
            value = interesting(state, value, bytes);
            memcpy(field, &value, width);
    }
}

static void edit_noise(uint8_t *data, size_t bytes, uint64_t *state) {
    size_t place = below(state, bytes), length = 1 + below(state, 16);
    switch (below(state, 3)) {
        case 0:
            for (; length > 0; length--) data[below(state, bytes)] ^= (uint8_t)(1u << below(state, 8));
            break;
        case 1: memset(data + place, (int)below(state, 256), length < bytes - place ? length : bytes - place); break;
        default: { /* one part over another */
            size_t from = below(state, bytes), most = bytes - (from > place ? from : place);
            memmove(data + place, data + from, below(state, most < 512 ? most : 512));
        }
    }
}

static size_t edit_length(const format_kind *kind, uint8_t *data, size_t bytes, size_t capacity, uint64_t *state) {
    size_t old = bytes;
    switch (below(state, 3)) {
        case 0: bytes = below(state, bytes); break;
        case 1: bytes -= below(state, bytes < 128 ? bytes : 128); break;
        default: bytes += below(state, capacity - bytes < 256 ? capacity - bytes : 256);
    }
    for (size_t i = old; i < bytes; i++) data[i] = (uint8_t)next(state);
    uint64_t claimed = bytes;
    if (bytes >= kind->length_offset + sizeof claimed && below(state, 4) != 0)
        memcpy(data + kind->length_offset, &claimed, sizeof claimed);
    return bytes;
}

size_t mutate(const format_kind *kind, uint8_t *data, size_t bytes, size_t capacity, uint64_t random) {
    uint64_t state = random;
    range found[MAX_RANGES]; /* while the tables can still be believed */
    size_t count = kind->ranges(data, found);
    switch (below(&state, 10)) {
        case 0: return edit_length(kind, data, bytes, capacity, &state);
        case 1:
        case 2: edit_noise(data, bytes, &state); break;
        case 3: edit_field(&found[below(&state, count)], data, bytes, &state); /* two wrongs that may agree */
        /* fall through */
        default: edit_field(&found[below(&state, count)], data, bytes, &state);
    }
    return bytes;
}

/* ---- Kinds. ---- */

const format_kind *find_kind(const char *name) {
    static const format_kind kinds[] = {
        {"artifact", read_artifact, seal_artifact, artifact_ranges, offsetof(format_header, file_bytes)},
        {"tensors", read_tensors, seal_tensors, tensor_ranges, offsetof(tensorfile_header, file_bytes)},
        {"checkpoint", read_checkpoint, seal_tensors, tensor_ranges, offsetof(tensorfile_header, file_bytes)},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
    return NULL;
}
