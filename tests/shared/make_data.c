/* For cli_data.sh: make_data RECORDS.bin CLASSES DIRECTORY writes the records of CIFAR-10's form
   whose labels are below CLASSES, class after class, in every form that the tool reads:

       sorted.bin, x.npy, y.npy, stored.npz, x-images-idx3-ubyte, x-labels-idx1-ubyte,
       png/c0/000000.png ..., jpeg/c0/000000.jpg ..., and where zlib is there packed.npz and
       gz/x-images-idx3-ubyte.gz

   None of it with code of the tool. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef PTQ_HAVE_stb
#include <stb/stb_image_write.h>
#endif
#ifdef PTQ_HAVE_zlib
#include <zlib.h>
#endif

enum { PLANE = 1024, PIXELS = 3072, RECORD = 3073, MOST = 20000 };

static uint8_t *records, *pixels, *labels;
static size_t count;
static const char *directory;

static void die(const char *why) {
    fprintf(stderr, "make_data: %s\n", why);
    exit(1);
}

static void read_records(const char *path, int classes) {
    uint8_t *all = malloc((size_t)MOST * RECORD);
    FILE *file = fopen(path, "rb");
    size_t n;

    records = malloc((size_t)MOST * RECORD);
    pixels = malloc((size_t)MOST * PIXELS);
    labels = malloc(MOST);
    if (!file || !all || !records || !pixels || !labels)
        die("cannot read the records");
    n = fread(all, RECORD, MOST, file);
    fclose(file);
    for (int c = 0; c < classes; c++)
        for (size_t i = 0; i < n; i++) {
            const uint8_t *record = all + i * RECORD;

            if (record[0] != c)
                continue;
            memcpy(records + count * RECORD, record, RECORD);
            labels[count] = record[0];
            for (int p = 0; p < PIXELS; p++)
                pixels[count * PIXELS + (size_t)p] = record[1 + p % 3 * PLANE + p / 3];
            count++;
        }
    free(all);
}

static FILE *create(const char *name) {
    char path[1024];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", directory, name);
    file = fopen(path, "wb");
    if (!file)
        die(path);
    return file;
}

static void save(const char *name, const void *head, size_t size, const void *body, size_t more) {
    FILE *file = create(name);

    if (fwrite(head, 1, size, file) != size || fwrite(body, 1, more, file) != more || fclose(file))
        die(name);
}

/* Version 1; the header ends on a multiple of 64 bytes. */
static size_t npy_header(char *text, const char *shape) {
    int used =
        snprintf(text + 10, 118, "{'descr': '|u1', 'fortran_order': False, 'shape': %s, }", shape);

    memcpy(text, "\x93NUMPY\1\0\x76\0", 10);
    memset(text + 10 + used, ' ', (size_t)(117 - used));
    text[127] = '\n';
    return 128;
}

static void shapes(char *x, char *y) {
    char shape[64];

    snprintf(shape, sizeof shape, "(%zu, 32, 32, 3)", count);
    npy_header(x, shape);
    snprintf(shape, sizeof shape, "(%zu,)", count);
    npy_header(y, shape);
}

static void save_arrays(void) {
    char x[128], y[128];
    uint8_t idx[20] = {0, 0, 8, 4, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 32, 0, 0, 0, 3};

    shapes(x, y);
    save("sorted.bin", "", 0, records, count * RECORD);
    save("x.npy", x, sizeof x, pixels, count * PIXELS);
    save("y.npy", y, sizeof y, labels, count);
    for (int i = 0; i < 4; i++)
        idx[4 + i] = (uint8_t)(count >> (24 - 8 * i));
    save("x-images-idx3-ubyte", idx, sizeof idx, pixels, count * PIXELS);
    idx[3] = 1;
    save("x-labels-idx1-ubyte", idx, 8, labels, count);
}

/* ---- ZIP ---- */

static uint32_t crc_of(const uint8_t *bytes, size_t size) {
    uint32_t crc = 0xffffffff;

    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static void put(FILE *file, uint32_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        fputc((int)(value >> 8 * i & 255), file);
}

typedef struct member {
    const char *name;
    uint8_t *bytes;
    size_t size, packed;
    uint32_t crc, at;
    int method;
} member;

static void put_member(FILE *file, const member *m, int listed) {
    put(file, listed ? 0x02014b50 : 0x04034b50, 4);
    if (listed)
        put(file, 20, 2);
    put(file, 20, 2);
    put(file, 0, 2);
    put(file, (uint32_t)m->method, 2);
    put(file, 0, 4);
    put(file, m->crc, 4);
    put(file, (uint32_t)m->packed, 4);
    put(file, (uint32_t)m->size, 4);
    put(file, (uint32_t)strlen(m->name), 2);
    put(file, 0, 2);
    if (listed) {
        put(file, 0, 2);
        put(file, 0, 4);
        put(file, 0, 4);
        put(file, m->at, 4);
    }
    fputs(m->name, file);
}

static member make_member(const char *name, const char *head, const uint8_t *body, size_t size,
                          int method) {
    member m = {name, NULL, 128 + size, 128 + size, 0, 0, method};

    m.bytes = malloc(m.size + 1000000);
    memcpy(m.bytes, head, 128);
    memcpy(m.bytes + 128, body, size);
    m.crc = crc_of(m.bytes, m.size);
#ifdef PTQ_HAVE_zlib
    if (method == 8) {
        uint8_t *packed = malloc(m.size + 1000000);
        z_stream s;

        memset(&s, 0, sizeof s);
        deflateInit2(&s, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
        s.next_in = m.bytes;
        s.avail_in = (uInt)m.size;
        s.next_out = packed;
        s.avail_out = (uInt)(m.size + 1000000);
        if (deflate(&s, Z_FINISH) != Z_STREAM_END)
            die("deflate");
        m.packed = s.total_out;
        deflateEnd(&s);
        free(m.bytes);
        m.bytes = packed;
    }
#endif
    return m;
}

/* As numpy.savez writes it, for both parts. */
static void save_npz(const char *file_name, int method) {
    char x[128], y[128];
    member m[4];
    FILE *file = create(file_name);
    long list;

    shapes(x, y);
    m[0] = make_member("x_test.npy", x, pixels, count * PIXELS, method);
    m[1] = make_member("y_test.npy", y, labels, count, method);
    m[2] = make_member("x_train.npy", x, pixels, count * PIXELS, method);
    m[3] = make_member("y_train.npy", y, labels, count, method);
    for (int i = 0; i < 4; i++) {
        m[i].at = (uint32_t)ftell(file);
        put_member(file, &m[i], 0);
        if (fwrite(m[i].bytes, 1, m[i].packed, file) != m[i].packed)
            die(file_name);
        free(m[i].bytes);
    }
    list = ftell(file);
    for (int i = 0; i < 4; i++)
        put_member(file, &m[i], 1);
    put(file, 0x06054b50, 4);
    put(file, 0, 4);
    put(file, 4, 2);
    put(file, 4, 2);
    put(file, (uint32_t)(ftell(file) - list - 12), 4);
    put(file, (uint32_t)list, 4);
    put(file, 0, 2);
    if (fclose(file))
        die(file_name);
}

#ifdef PTQ_HAVE_zlib
static void save_gz(const char *name, const void *head, size_t size, const void *body,
                    size_t more) {
    char path[1024];
    gzFile file;

    snprintf(path, sizeof path, "%s/%s", directory, name);
    file = gzopen(path, "wb");
    if (!file || gzwrite(file, head, (unsigned)size) != (int)size ||
        gzwrite(file, body, (unsigned)more) != (int)more || gzclose(file) != Z_OK)
        die(name);
}
#endif

/* ---- Pictures ---- */

#ifdef PTQ_HAVE_stb
static void save_pictures(const char *kind) {
    char path[1024];

    snprintf(path, sizeof path, "%s/%s", directory, kind);
    mkdir(path, 0777);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = pixels + i * PIXELS;

        snprintf(path, sizeof path, "%s/%s/c%d", directory, kind, labels[i]);
        mkdir(path, 0777);
        snprintf(path + strlen(path), sizeof path - strlen(path), "/%06zu.%s", i,
                 *kind == 'p' ? "png" : "jpg");
        if (!(*kind == 'p' ? stbi_write_png(path, 32, 32, 3, from, 96)
                           : stbi_write_jpg(path, 32, 32, 3, from, 95)))
            die(path);
    }
}
#endif

int main(int argc, char **argv) {
    if (argc != 4)
        die("usage: make_data RECORDS.bin CLASSES DIRECTORY");
    directory = argv[3];
    read_records(argv[1], atoi(argv[2]));
    save_arrays();
    save_npz("stored.npz", 0);
#ifdef PTQ_HAVE_zlib
    save_npz("packed.npz", 8);
    {
        uint8_t idx[20] = {0, 0, 8, 4, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 32, 0, 0, 0, 3};
        char path[1024];

        snprintf(path, sizeof path, "%s/gz", directory);
        mkdir(path, 0777);
        for (int i = 0; i < 4; i++)
            idx[4 + i] = (uint8_t)(count >> (24 - 8 * i));
        save_gz("gz/x-images-idx3-ubyte.gz", idx, sizeof idx, pixels, count * PIXELS);
    }
#endif
#ifdef PTQ_HAVE_stb
    save_pictures("png");
    save_pictures("jpeg");
#endif
    free(records);
    free(pixels);
    free(labels);
    return 0;
}
