/* Fuzz target: any bytes as a ZIP archive, of which every member is opened. */
#include "arrays.h"
#include "shared/zip.h"

static void read_member(const zip_archive *archive, const zip_member *member) {
    data_bytes bytes;
    data_array array;
    uint8_t last;

    if (zip_member_open(archive, member, &bytes, &err)) {
        expect(err.text[0]);
        return;
    }
    expect(bytes.size == member->size);
    if (bytes.size)
        expect(!bytes_read(&bytes, bytes.size - 1, 1, &last, &err));
    expect(bytes_read(&bytes, bytes.size, 1, &last, &err));
    if (bytes.size < 1 << 20 && !npy_open(&bytes, "input", &array, &err))
        read_array(&array);
    bytes_close(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    data_bytes bytes = bytes_over(data, size);
    zip_archive archive;

    if (zip_open(&bytes, &archive, &err)) {
        expect(err.text[0]);
        return 0;
    }
    /* Many entries may name the same bytes. */
    for (int i = 0; i < archive.members && i < 4; i++)
        read_member(&archive, &archive.member[i]);
    zip_close(&archive);
    return 0;
}
