/* ZIP archives, as far as .npz and .keras files use them: stored and deflated members, 64-bit sizes.
   No encryption, no archives in several files. */
#ifndef PTQ_TOOL_ZIP_H
#define PTQ_TOOL_ZIP_H

#include <stdint.h>

#include "shared/bytes.h"

typedef struct zip_member {
    char *name;
    int method;
    uint64_t packed, size, header; /* header: where the member begins */
    uint32_t crc;
} zip_member;

typedef struct zip_archive {
    data_bytes bytes; /* the caller's, who keeps it open */
    zip_member *member;
    int members;
} zip_archive;

/* Reads the list of members. What it leads to is checked when a member is opened. */
ptq_status zip_open(const data_bytes *bytes, zip_archive *out, ptq_error *err);
void zip_close(zip_archive *archive);

/* NULL if there is none of that name. */
const zip_member *zip_find(const zip_archive *archive, const char *name);

/* The member's bytes: where they lie if they are stored, else unpacked. To be closed. */
ptq_status zip_member_open(const zip_archive *archive, const zip_member *member, data_bytes *out,
                           ptq_error *err);

#endif
