#include "storage.h"

#include <string.h>

/* The same question as Storage.is_row_major in abi.py. */
static int is_row_major(const format_storage *s) {
    if (s->rank == 0) return 1;
    size_t size = 1;
    for (uint32_t axis = 0; axis < s->rank; axis++) size *= s->dims[axis];
    uint32_t columns = s->dims[s->perm[s->rank - 1]];
    if (s->block != 0 && s->block < columns && size > columns) return 0;
    uint32_t last = 0;
    for (uint32_t place = 0; place < s->rank; place++) {
        uint32_t axis = s->perm[place];
        if (s->dims[axis] == 1) continue;
        if (axis < last) return 0;
        last = axis;
    }
    return 1;
}

void storage_start(storage_cursor *cursor, const format_storage *storage) {
    memset(cursor, 0, sizeof *cursor);
    cursor->storage = storage;
    cursor->row_major = is_row_major(storage);
    size_t step = 1;
    for (uint32_t place = storage->rank; place-- > 0;) {
        uint32_t axis = storage->perm[place];
        if (storage->block != 0 && place + 1u == storage->rank) continue;
        cursor->stride[axis] = step;
        step *= storage->dims[axis];
    }
    cursor->rows = step;
}

static size_t element_offset(const storage_cursor *cursor) {
    const format_storage *s = cursor->storage;
    if (s->block == 0) return cursor->offset;
    uint32_t cut = s->perm[s->rank - 1];
    uint32_t first = cursor->index[cut] / s->block * s->block; /* column of the panel */
    uint32_t left = s->dims[cut] - first;
    uint32_t width = left < s->block ? left : s->block;
    return first * cursor->rows + cursor->offset * width + (cursor->index[cut] - first);
}

static void advance(storage_cursor *cursor) {
    const format_storage *s = cursor->storage;
    for (uint32_t axis = s->rank; axis-- > 0;) {
        cursor->offset += cursor->stride[axis];
        if (++cursor->index[axis] < s->dims[axis]) return;
        cursor->offset -= cursor->stride[axis] * s->dims[axis];
        cursor->index[axis] = 0;
    }
}

static void copy_element(uint8_t *target, const uint8_t *source, size_t bytes) {
    switch (bytes) { /* constant sizes become single moves */
        case 1: *target = *source; break;
        case 2: memcpy(target, source, 2); break;
        case 4: memcpy(target, source, 4); break;
        default: memcpy(target, source, 8); break;
    }
}

void storage_unpack(storage_cursor *cursor, void *logical, const void *stored, size_t count, size_t element_bytes) {
    uint8_t *target = logical;
    const uint8_t *source = stored;
    if (cursor->row_major) {
        if (count > 0) memcpy(target, source + cursor->position * element_bytes, count * element_bytes);
    } else {
        for (size_t i = 0; i < count; i++, advance(cursor))
            copy_element(target + i * element_bytes, source + element_offset(cursor) * element_bytes, element_bytes);
    }
    cursor->position += count;
}

void storage_pack(storage_cursor *cursor, void *stored, const void *logical, size_t count, size_t element_bytes) {
    uint8_t *target = stored;
    const uint8_t *source = logical;
    if (cursor->row_major) {
        if (count > 0) memcpy(target + cursor->position * element_bytes, source, count * element_bytes);
    } else {
        for (size_t i = 0; i < count; i++, advance(cursor))
            copy_element(target + element_offset(cursor) * element_bytes, source + i * element_bytes, element_bytes);
    }
    cursor->position += count;
}

void storage_convert(const format_storage *to, void *target, const format_storage *from, const void *source,
                     size_t count, size_t element_bytes) {
    uint64_t piece[64];
    storage_cursor reader, writer;
    storage_start(&reader, from);
    storage_start(&writer, to);
    while (count > 0) {
        size_t n = count < sizeof piece / element_bytes ? count : sizeof piece / element_bytes;
        storage_unpack(&reader, piece, source, n, element_bytes);
        storage_pack(&writer, target, piece, n, element_bytes);
        count -= n;
    }
}
