/* How fast memory can be read: what the speed of a product is compared with. */
#include <string.h>

#include "kernels.h"

enum { PART = 1 << 20, LINE = 64 };

typedef struct {
    const uint8_t *data;
    int64_t bytes;
    _Atomic uint64_t total;
} reading;

static void read_part(void *arg, int64_t part) {
    reading *all = arg;
    uint64_t sums[LINE / 8] = {0};
    int64_t end = (part + 1) * PART < all->bytes ? (part + 1) * PART : all->bytes;
    for (int64_t at = part * PART; at + LINE <= end; at += LINE) {
        uint64_t words[LINE / 8];
        __builtin_prefetch(all->data + at + 2048);
        memcpy(words, all->data + at, LINE);
        for (int k = 0; k < LINE / 8; k++) sums[k] += words[k];
    }
    for (int k = 0; k < LINE / 8; k++) all->total += sums[k];
}

uint64_t sec_stream(sec_pool *pool, const void *data, int64_t bytes) {
    reading all = {data, bytes, 0};
    int64_t parts = (bytes + PART - 1) / PART;
    if (pool)
        sec_pool_run(pool, read_part, &all, parts);
    else
        for (int64_t part = 0; part < parts; part++) read_part(&all, part);
    return all.total;
}
