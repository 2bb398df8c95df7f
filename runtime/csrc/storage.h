/* Logical (row-major) elements to and from stored ones, in pieces of any length and without allocation. */
#ifndef EDGEC_STORAGE_H
#define EDGEC_STORAGE_H

#include <stddef.h>

#include "format.h"

/* A place in the logical order of a tensor. */
typedef struct storage_cursor {
    const format_storage *storage;
    size_t position; /* elements passed */
    int row_major;   /* stored order is logical order */
    uint32_t index[8];
    size_t stride[8]; /* elements between neighbours; in panels: rows between them, 0 for the axis cut into panels */
    size_t offset;    /* sum of index * stride */
    size_t rows;      /* of a panel: elements over all other axes */
} storage_cursor;

/* `storage` has been validated. */
void storage_start(storage_cursor *cursor, const format_storage *storage);

/* The next `count` elements out of `stored` (its beginning, not the place) into `logical`, and back. */
void storage_unpack(storage_cursor *cursor, void *logical, const void *stored, size_t count, size_t element_bytes);
void storage_pack(storage_cursor *cursor, void *stored, const void *logical, size_t count, size_t element_bytes);

/* A whole tensor of `count` elements from one storage to another. */
void storage_convert(const format_storage *to, void *target, const format_storage *from, const void *source,
                     size_t count, size_t element_bytes);

#endif
