#include "tensorfile.h"

#include <string.h>

#include "model.h"

enum { SUM = sizeof(uint32_t), PIECE = 16384 };

static uint64_t aligned(uint64_t offset) { return (offset + EDGEC_ALIGNMENT - 1) / EDGEC_ALIGNMENT * EDGEC_ALIGNMENT; }

/* Header, entries and names; their checksum follows. */
static size_t head_bytes(const tensorfile_header *h) {
    return sizeof *h + h->count * sizeof(tensorfile_entry) + h->name_bytes;
}

/* ---- Reading. ---- */

static edgec_status check_header(const uint8_t *data, size_t bytes) {
    const tensorfile_header *h = (const tensorfile_header *)(const void *)data;
    if (bytes < sizeof h->magic || memcmp(h->magic, TENSORFILE_MAGIC, sizeof h->magic) != 0)
        return EDGEC_NOT_A_CHECKPOINT;
    if (bytes < sizeof *h + SUM + SUM) return EDGEC_CHECKPOINT_DAMAGED;
    /* Before the checksum: a newer header may be longer. */
    if (h->version > TENSORFILE_VERSION) return EDGEC_CHECKPOINT_NEWER;
    if (h->file_bytes != bytes) return EDGEC_CHECKPOINT_DAMAGED;
    size_t left = bytes - sizeof *h - SUM - SUM;
    if (h->count > left / sizeof(tensorfile_entry)) return EDGEC_CHECKPOINT_DAMAGED;
    return h->name_bytes > left - h->count * sizeof(tensorfile_entry) ? EDGEC_CHECKPOINT_DAMAGED : EDGEC_OK;
}

static int sum_agrees(const crc32_table *table, const uint8_t *data, size_t bytes) {
    uint32_t sum;
    memcpy(&sum, data + bytes, sizeof sum);
    return crc32_update(table, 0, data, bytes) == sum;
}

static edgec_status check_sums(const uint8_t *data, size_t bytes) {
    size_t head = head_bytes((const tensorfile_header *)(const void *)data);
    crc32_table table;
    crc32_init(&table);
    if (!sum_agrees(&table, data, head)) return EDGEC_CHECKPOINT_DAMAGED;
    head += SUM;
    return sum_agrees(&table, data + head, bytes - head - SUM) ? EDGEC_OK : EDGEC_CHECKPOINT_DAMAGED;
}

/* Names and arrays follow one another without choice, so that none overlap and every byte has one meaning. */
static edgec_status check_entries(const tensorfile *f, size_t bytes) {
    const tensorfile_header *h = f->header;
    uint64_t size, end = head_bytes(h) + SUM, limit = bytes - SUM;
    uint32_t name = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        const tensorfile_entry *e = &f->entries[i];
        size_t left = h->name_bytes - name;
        const char *stop = memchr(f->names + name, 0, left < EDGEC_MAX_NAME + 1 ? left : EDGEC_MAX_NAME + 1);
        if (e->name != name || stop == NULL) return EDGEC_CHECKPOINT_MALFORMED;
        name = (uint32_t)(stop - f->names) + 1;
        if (!shape_bytes(e->shape, e->rank, dtype_bytes(e->dtype), &size) || size != e->bytes)
            return EDGEC_CHECKPOINT_MALFORMED;
        end = aligned(end);
        if (e->offset != end || end > limit || size > limit - end) return EDGEC_CHECKPOINT_MALFORMED;
        end += size;
    }
    return h->version != 0 && name == h->name_bytes && end == limit ? EDGEC_OK : EDGEC_CHECKPOINT_MALFORMED;
}

edgec_status tensorfile_read(tensorfile *f, const uint8_t *data, size_t bytes) {
    edgec_status status = check_header(data, bytes);
    if (status == EDGEC_OK) status = check_sums(data, bytes);
    if (status != EDGEC_OK) return status;
    f->file = (platform_file){data, bytes, -1};
    f->header = (const tensorfile_header *)(const void *)data;
    f->entries = (const tensorfile_entry *)(const void *)(data + sizeof *f->header);
    f->names = (const char *)(f->entries + f->header->count);
    return check_entries(f, bytes);
}

edgec_status tensorfile_open(tensorfile *f, const char *path) {
    platform_file file;
    edgec_status status = platform_file_map(path, &file);
    if (status != EDGEC_OK) return status;
    status = tensorfile_read(f, file.data, file.bytes);
    if (status == EDGEC_OK)
        f->file = file;
    else
        platform_file_unmap(&file);
    return status;
}

void tensorfile_close(tensorfile *f) { platform_file_unmap(&f->file); }

const tensorfile_entry *tensorfile_find(const tensorfile *f, const char *name, uint32_t from) {
    uint32_t count = f->header->count;
    for (uint32_t i = 0; i < count; i++) {
        const tensorfile_entry *e = &f->entries[((uint64_t)from + i) % count];
        if (strcmp(tensorfile_name(f, e), name) == 0) return e;
    }
    return NULL;
}

/* ---- Writing. ---- */

/* After a failure nothing more is written. */
typedef struct stream {
    platform_writer *writer;
    edgec_status status;
    uint32_t sum; /* of what was put since the last checksum */
    crc32_table table;
} stream;

static void put(stream *s, const void *data, size_t bytes) {
    if (s->status != EDGEC_OK || bytes == 0) return;
    s->sum = crc32_update(&s->table, s->sum, data, bytes);
    s->status = platform_writer_write(s->writer, data, bytes);
}

static void put_sum(stream *s) {
    uint32_t sum = s->sum;
    put(s, &sum, sizeof sum);
    s->sum = 0;
}

/* Describes candidate number `*candidate`, or the next one that is not left out; 0: there is none. */
static int next_array(const tensorfile_source *source, uint32_t *candidate, tensorfile_array *array) {
    for (; *candidate < source->candidates; ++*candidate)
        if (source->describe(source->context, *candidate, array)) return 1;
    return 0;
}

/* Returns where the head and its checksum will end. */
static uint64_t put_header(stream *s, const tensorfile_header *identity, const tensorfile_source *source) {
    tensorfile_header h = *identity;
    tensorfile_array array;
    uint64_t name_bytes = 0;
    memcpy(h.magic, TENSORFILE_MAGIC, sizeof h.magic);
    h.version = TENSORFILE_VERSION;
    h.count = 0;
    h.reserved = 0;
    for (uint32_t i = 0; next_array(source, &i, &array); i++, h.count++) name_bytes += strlen(array.name) + 1;
    if (name_bytes > UINT32_MAX) s->status = EDGEC_CANNOT_WRITE;
    h.name_bytes = (uint32_t)name_bytes;
    uint64_t head_end = head_bytes(&h) + SUM;
    h.file_bytes = head_end;
    for (uint32_t i = 0; next_array(source, &i, &array); i++) h.file_bytes = aligned(h.file_bytes) + array.bytes;
    h.file_bytes += SUM;
    put(s, &h, sizeof h);
    return head_end;
}

static void put_entries(stream *s, const tensorfile_source *source, uint64_t offset) {
    tensorfile_array array;
    uint32_t name = 0;
    for (uint32_t i = 0; next_array(source, &i, &array); i++) {
        tensorfile_entry e = {.bytes = array.bytes, .name = name, .dtype = array.dtype, .rank = array.rank};
        e.offset = aligned(offset);
        for (uint32_t axis = 0; axis < array.rank; axis++) e.shape[axis] = array.shape[axis];
        put(s, &e, sizeof e);
        offset = e.offset + e.bytes;
        name += (uint32_t)strlen(array.name) + 1;
    }
    for (uint32_t i = 0; next_array(source, &i, &array); i++) put(s, array.name, strlen(array.name) + 1);
}

static void put_arrays(stream *s, const tensorfile_source *source, uint64_t offset) {
    static const uint8_t zeros[EDGEC_ALIGNMENT];
    uint8_t piece[PIECE];
    tensorfile_array array;
    for (uint32_t i = 0; next_array(source, &i, &array); i++) {
        put(s, zeros, (size_t)(aligned(offset) - offset));
        offset = aligned(offset) + array.bytes;
        for (uint64_t left = array.bytes; left > 0 && s->status == EDGEC_OK;) {
            size_t bytes = left < sizeof piece ? (size_t)left : sizeof piece;
            source->copy(source->context, i, piece, bytes);
            put(s, piece, bytes);
            left -= bytes;
        }
    }
}

edgec_status tensorfile_write(platform_writer *writer, const tensorfile_header *identity,
                              const tensorfile_source *source) {
    stream s = {.writer = writer, .status = EDGEC_OK};
    crc32_init(&s.table);
    uint64_t head_end = put_header(&s, identity, source);
    put_entries(&s, source, head_end);
    put_sum(&s);
    put_arrays(&s, source, head_end);
    put_sum(&s);
    return s.status;
}
