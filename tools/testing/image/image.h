/* The data of a test image; cortex_m.py writes it. */
#ifndef IMAGE_H
#define IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "edgec.h"

/* An input or scalar by name: `bytes` for every step, one step after the other. */
typedef struct image_feed {
    const char *name;
    const uint64_t *data;
    size_t bytes;
} image_feed;

extern const image_feed image_feeds[];
extern const uint32_t image_feed_count, image_step_count;
extern const size_t image_memory_bytes;

size_t image_memory_used(void); /* of these */
edgec_status image_open(edgec_model **model, edgec_session **session);

#endif
