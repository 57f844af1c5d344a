/* ZIP archives (PKWARE's APPNOTE.TXT 6.3). The list of members stands at the end; the last record
   says where it begins, in 64 bits where 32 do not do. */
#include <stdlib.h>
#include <string.h>

#include "shared/bytes.h"
#include "shared/zip.h"
#include "ptq.h"

enum {
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    MEMBER_BYTES = 46,
    LOCAL_BYTES = 30,
    MOST_COMMENT = 65535,
    MOST_MEMBERS = 1 << 16,
    MOST_LIST = 16 << 20, /* bytes of the list of members */
    STORED = 0,
    DEFLATED = 8
};

static uint64_t number(const uint8_t *at, int bytes) {
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static ptq_status damaged(const data_bytes *bytes, const char *what, ptq_error *err) {
    return ptq_error_set(err, PTQ_BAD_DATA, "%s: %s; the archive is damaged", bytes->where, what);
}

/* Where the list lies. */
typedef struct listing {
    uint64_t offset, size, members;
} listing;

static ptq_status read_end64(const data_bytes *bytes, uint64_t end, listing *list, ptq_error *err) {
    uint8_t record[END64_BYTES];
    ptq_status status;

    if (end < LOCATOR_BYTES)
        return damaged(bytes, "its last record is not complete", err);
    status = bytes_read(bytes, end - LOCATOR_BYTES, LOCATOR_BYTES, record, err);
    if (!status && number(record, 4) != 0x07064b50)
        return damaged(bytes, "its last record is not complete", err);
    if (!status)
        status = bytes_read(bytes, number(record + 8, 8), END64_BYTES, record, err);
    if (!status && number(record, 4) != 0x06064b50)
        return damaged(bytes, "its last record is not where it should be", err);
    if (!status) {
        list->members = number(record + 32, 8);
        list->size = number(record + 40, 8);
        list->offset = number(record + 48, 8);
    }
    return status;
}

/* The last record lies before a comment of unknown length. */
static ptq_status find_list(const data_bytes *bytes, listing *list, ptq_error *err) {
    size_t length =
        bytes->size < END_BYTES + MOST_COMMENT ? (size_t)bytes->size : END_BYTES + MOST_COMMENT;
    uint8_t *tail = malloc(length ? length : 1), *at = NULL;
    uint64_t from = bytes->size - length;
    ptq_status status;

    if (!tail)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory");
    status = bytes_read(bytes, from, length, tail, err);
    for (size_t i = length; !status && !at && i >= END_BYTES; i--)
        if (number(tail + i - END_BYTES, 4) == 0x06054b50)
            at = tail + i - END_BYTES;
    if (!status && !at)
        status = damaged(bytes, "it has no list of members", err);
    if (!status) {
        list->members = number(at + 10, 2);
        list->size = number(at + 12, 4);
        list->offset = number(at + 16, 4);
        if (list->members == 0xffff || list->size == 0xffffffff || list->offset == 0xffffffff)
            status = read_end64(bytes, from + (uint64_t)(at - tail), list, err);
    }
    free(tail);
    return status;
}

/* Sizes that do not fit 32 bits stand in an extra field, those alone, in this order. */
static void read_extra(const uint8_t *extra, size_t length, zip_member *member) {
    uint64_t *wide[] = {&member->size, &member->packed, &member->header};

    while (length >= 4) {
        size_t size = (size_t)number(extra + 2, 2), used = 0;

        if (size > length - 4)
            return;
        for (int i = 0; i < 3 && number(extra, 2) == 1; i++)
            if (*wide[i] == 0xffffffff && used + 8 <= size) {
                *wide[i] = number(extra + 4 + used, 8);
                used += 8;
            }
        extra += 4 + size;
        length -= 4 + size;
    }
}

/* One entry of the list at *at; *at moves behind it. */
static ptq_status read_member(zip_archive *archive, const uint8_t **at, size_t *left,
                              ptq_error *err) {
    const uint8_t *p = *at;
    zip_member *member = &archive->member[archive->members];
    size_t name, extra, whole;

    if (*left < MEMBER_BYTES || number(p, 4) != 0x02014b50)
        return damaged(&archive->bytes, "its list of members is not complete", err);
    name = (size_t)number(p + 28, 2);
    extra = (size_t)number(p + 30, 2);
    whole = MEMBER_BYTES + name + extra + (size_t)number(p + 32, 2);
    if (*left < whole)
        return damaged(&archive->bytes, "its list of members is not complete", err);
    member->name = calloc(name + 1, 1);
    if (!member->name)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory");
    archive->members++;
    memcpy(member->name, p + MEMBER_BYTES, name);
    member->method = number(p + 8, 2) & 1 ? -1 : (int)number(p + 10, 2); /* -1: encrypted */
    member->crc = (uint32_t)number(p + 16, 4);
    member->packed = number(p + 20, 4);
    member->size = number(p + 24, 4);
    member->header = number(p + 42, 4);
    read_extra(p + MEMBER_BYTES + name, extra, member);
    *at += whole;
    *left -= whole;
    return PTQ_OK;
}

ptq_status zip_open(const data_bytes *bytes, zip_archive *out, ptq_error *err) {
    listing list = {0, 0, 0};
    uint8_t *text = NULL;
    ptq_status status = find_list(bytes, &list, err);

    memset(out, 0, sizeof *out);
    out->bytes = bytes_part(bytes, 0, bytes->size);
    if (!status && (list.members > MOST_MEMBERS || list.size > MOST_LIST))
        status =
            ptq_error_set(err, PTQ_BAD_DATA, "%s: its list of members is too long", bytes->where);
    if (!status) {
        text = malloc((size_t)list.size + 1);
        out->member = calloc((size_t)list.members + 1, sizeof *out->member);
        status = text && out->member ? bytes_read(bytes, list.offset, (size_t)list.size, text, err)
                                     : ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory");
    }
    if (!status) {
        const uint8_t *at = text;
        size_t left = (size_t)list.size;

        for (uint64_t i = 0; i < list.members && !status; i++)
            status = read_member(out, &at, &left, err);
    }
    free(text);
    if (status)
        zip_close(out);
    return status;
}

void zip_close(zip_archive *archive) {
    for (int i = 0; i < archive->members; i++)
        free(archive->member[i].name);
    free(archive->member);
    memset(archive, 0, sizeof *archive);
}

const zip_member *zip_find(const zip_archive *archive, const char *name) {
    for (int i = 0; i < archive->members; i++)
        if (!strcmp(archive->member[i].name, name))
            return &archive->member[i];
    return NULL;
}

ptq_status zip_member_open(const zip_archive *archive, const zip_member *member, data_bytes *out,
                           ptq_error *err) {
    const data_bytes *all = &archive->bytes;
    uint8_t local[LOCAL_BYTES];
    inflate_request wanted = {1, member->size, member->crc};
    data_bytes packed;
    uint64_t from;
    ptq_status status = bytes_read(all, member->header, LOCAL_BYTES, local, err);

    memset(out, 0, sizeof *out);
    if (status)
        return status;
    from = member->header + LOCAL_BYTES + number(local + 26, 2) + number(local + 28, 2);
    if (number(local, 4) != 0x04034b50 || from > all->size || member->packed > all->size - from ||
        (member->method == STORED && member->packed != member->size))
        return damaged(all, "a member is not where its list says", err);
    packed = bytes_part(all, from, member->packed);
    if (member->method == STORED) {
        *out = packed;
        return PTQ_OK;
    }
    if (member->method != DEFLATED)
        return ptq_error_set(err, PTQ_UNSUPPORTED,
                             "%s: the member %s is %s; write it again with numpy.savez", all->where,
                             member->name,
                             member->method < 0 ? "encrypted" : "compressed in an unknown way");
    if (member->size > bytes_unpacked_limit(member->packed))
        return ptq_error_set(err, PTQ_BAD_DATA,
                             "%s: %llu bytes would come out of %llu of the member %s, as of a zip "
                             "bomb; if it is none, unpack it yourself",
                             all->where, (unsigned long long)member->size,
                             (unsigned long long)member->packed, member->name);
    return bytes_inflate(&packed, &wanted, out, err);
}
