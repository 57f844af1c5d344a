/* Reading bytes from files and archives. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef PTQ_HAVE_zlib
#include <zlib.h>
#endif

#include "shared/bytes.h"
#include "ptq.h"
#include "shared/files.h"
#include "shared/machine.h"

enum { BLOCK = 1 << 16, SMALL = 64 << 20, MOST_RATIO = 200 };

ptq_status bytes_open(const char *path, data_bytes *out, ptq_error *err) {
    struct stat found;

    memset(out, 0, sizeof *out);
    out->where = path;
    if (stat(path, &found))
        return ptq_error_set(err, PTQ_IO_ERROR, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(found.st_mode))
        return ptq_error_set(err, PTQ_IO_ERROR, "cannot read %s: it is no file", path);
    out->file = open(path, O_RDONLY | O_CLOEXEC);
    if (out->file < 0)
        return ptq_error_set(err, PTQ_IO_ERROR, "cannot read %s: %s", path, strerror(errno));
    out->opened = 1;
    out->size = (uint64_t)found.st_size;
    return PTQ_OK;
}

void bytes_close(data_bytes *bytes) {
    if (bytes->opened)
        close(bytes->file);
    memset(bytes, 0, sizeof *bytes);
}

data_bytes bytes_part(const data_bytes *bytes, uint64_t offset, uint64_t size) {
    data_bytes part = *bytes;

    part.opened = 0;
    part.start += offset;
    part.size = size;
    return part;
}

ptq_status bytes_read(const data_bytes *bytes, uint64_t offset, size_t size, void *to,
                      ptq_error *err) {
    size_t done = 0;

    if (offset > bytes->size || size > bytes->size - offset)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s ends too early: it is cut off", bytes->where);
    if (bytes->memory) {
        memcpy(to, bytes->memory + bytes->start + offset, size);
        return PTQ_OK;
    }
    while (done < size) {
        ssize_t got = pread(bytes->file, (char *)to + done, size - done,
                            (off_t)(bytes->start + offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return ptq_error_set(err, PTQ_IO_ERROR, "cannot read %s: %s", bytes->where,
                                 got < 0 ? strerror(errno) : "it became shorter");
        done += (size_t)got;
    }
    return PTQ_OK;
}

uint64_t bytes_unpacked_limit(uint64_t packed) {
    return packed < SMALL / MOST_RATIO ? SMALL : packed * MOST_RATIO;
}

#ifdef PTQ_HAVE_zlib

static int temporary_file(void) {
    const char *folder = environment("TMPDIR");
    char path[PATH_SIZE];
    int file;

    snprintf(path, sizeof path, "%.4000s/ptq-data-XXXXXX", folder ? folder : "/tmp");
    file = mkstemp(path);
    if (file >= 0)
        unlink(path);
    return file;
}

static int write_all(int file, const uint8_t *from, size_t size) {
    while (size) {
        ssize_t put = write(file, from, size);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return 1;
        from += put;
        size -= (size_t)put;
    }
    return 0;
}

/* What inflating needs, in one piece: a stack should not hold it. */
typedef struct unpacking {
    z_stream stream;
    const data_bytes *from;
    const inflate_request *wanted;
    uint64_t taken; /* of `from` */
    uint32_t crc;
    int ended;
    uint8_t in[BLOCK], out[BLOCK];
} unpacking;

/* Unpacks as much as fits into `out`; gzip files may consist of several parts. */
static ptq_status unpack_block(unpacking *u, ptq_error *err) {
    u->stream.next_out = u->out;
    u->stream.avail_out = BLOCK;
    while (!u->ended && u->stream.avail_out) {
        int state;

        if (!u->stream.avail_in) {
            uint64_t left = u->from->size - u->taken;
            size_t more = left < BLOCK ? (size_t)left : BLOCK;
            ptq_status status = bytes_read(u->from, u->taken, more, u->in, err);

            if (status)
                return status;
            u->taken += more;
            u->stream.next_in = u->in;
            u->stream.avail_in = (uInt)more;
        }
        state = inflate(&u->stream, Z_NO_FLUSH);
        if (state == Z_STREAM_END && !u->wanted->exact &&
            (u->stream.avail_in || u->taken < u->from->size)) {
            if (inflateReset(&u->stream) == Z_OK)
                continue;
        }
        u->ended = state == Z_STREAM_END;
        if (!u->ended && (state != Z_OK || (!u->stream.avail_in && u->taken == u->from->size &&
                                            u->stream.avail_out)))
            return ptq_error_set(err, PTQ_BAD_DATA, "%s: its compressed data are damaged",
                                 u->from->where);
    }
    return PTQ_OK;
}

static ptq_status unpack(unpacking *u, int file, uint64_t *size, ptq_error *err) {
    ptq_status status = PTQ_OK;

    while (!u->ended && !status) {
        size_t made;

        status = unpack_block(u, err);
        if (status)
            break;
        made = BLOCK - u->stream.avail_out;
        if (made > u->wanted->most - *size)
            status = ptq_error_set(err, PTQ_BAD_DATA,
                                   "%s: more than %llu bytes come out of %llu, as of a zip bomb; "
                                   "if it is none, unpack it yourself",
                                   u->from->where, (unsigned long long)u->wanted->most,
                                   (unsigned long long)u->from->size);
        else if (write_all(file, u->out, made))
            status = ptq_error_set(err, PTQ_IO_ERROR,
                                   "cannot unpack %s: %s; set TMPDIR to a folder with more room",
                                   u->from->where, strerror(errno));
        u->crc = (uint32_t)crc32(u->crc, u->out, (uInt)made);
        *size += made;
    }
    if (!status && u->wanted->exact && (*size != u->wanted->most || u->crc != u->wanted->crc))
        status =
            ptq_error_set(err, PTQ_BAD_DATA, "%s: its compressed data are damaged", u->from->where);
    return status;
}

ptq_status bytes_inflate(const data_bytes *packed, const inflate_request *wanted, data_bytes *out,
                         ptq_error *err) {
    unpacking *u = calloc(1, sizeof *u);
    ptq_status status;

    memset(out, 0, sizeof *out);
    if (!u)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory");
    u->from = packed;
    u->wanted = wanted;
    if (inflateInit2(&u->stream, wanted->exact ? -15 : 15 + 16) != Z_OK) {
        free(u);
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory");
    }
    out->where = packed->where;
    out->file = temporary_file();
    out->opened = out->file >= 0;
    status = out->opened ? unpack(u, out->file, &out->size, err)
                         : ptq_error_set(err, PTQ_IO_ERROR,
                                         "cannot unpack %s: no file can be made in TMPDIR (%s)",
                                         packed->where, strerror(errno));
    inflateEnd(&u->stream);
    free(u);
    if (status)
        bytes_close(out);
    return status;
}

#else

ptq_status bytes_inflate(const data_bytes *packed, const inflate_request *wanted, data_bytes *out,
                         ptq_error *err) {
    (void)wanted;
    memset(out, 0, sizeof *out);
    return ptq_error_set(err, PTQ_UNSUPPORTED,
                         "%s is compressed, and this program was built without zlib; unpack it "
                         "first",
                         packed->where);
}

#endif
