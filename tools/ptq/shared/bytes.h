/* Bytes that are read where they lie: of a file, of a part of one, of memory. What is compressed is
   unpacked into a file without a name first, so that no data set needs memory of its size. */
#ifndef PTQ_TOOL_BYTES_H
#define PTQ_TOOL_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "ptq.h"

typedef struct data_bytes {
    const char *where;     /* the path, for messages; the caller's */
    const uint8_t *memory; /* NULL: in `file` */
    int file, opened;      /* opened: to be closed */
    uint64_t start, size;
} data_bytes;

/* A file as it is; never a pipe or a device, from which nothing can be read twice. */
ptq_status bytes_open(const char *path, data_bytes *out, ptq_error *err);
void bytes_close(data_bytes *bytes);

/* Exactly `size` bytes from `offset` on. Several threads may read at once. */
ptq_status bytes_read(const data_bytes *bytes, uint64_t offset, size_t size, void *to,
                      ptq_error *err);

/* A part of other bytes, which must stay open. */
data_bytes bytes_part(const data_bytes *bytes, uint64_t offset, uint64_t size);

/* Unpacked; `most`: the size that must not be exceeded. A raw deflate stream, whose size and CRC-32
   are known beforehand, or a gzip file (exact 0). */
typedef struct inflate_request {
    int exact;
    uint64_t most;
    uint32_t crc;
} inflate_request;
ptq_status bytes_inflate(const data_bytes *packed, const inflate_request *wanted, data_bytes *out,
                         ptq_error *err);

/* No data set that people compress shrinks more than this; a zip bomb does. Small ones are let
   through. */
uint64_t bytes_unpacked_limit(uint64_t packed);

#endif
