/* Decoding pictures with stb_image, turning them upright, bringing them to a size. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#ifdef PTQ_HAVE_stb
#include <stb/stb_image.h>
#endif

#include "data/picture.h"
#include "ptq.h"

enum {
    MOST_SIDE = 16384, /* pixels: a small file may claim to be a huge picture */
    MOST_PIXELS = 64 << 20,
    MOST_BYTES = 256 << 20 /* of a file */
};

/* ---- Orientation ---- */

static unsigned number(const uint8_t *at, int bytes, int big) {
    unsigned value = 0;

    for (int i = 0; i < bytes; i++)
        value |= (unsigned)at[i] << 8 * (big ? bytes - 1 - i : i);
    return value;
}

/* In a TIFF block: the entry 0x0112 of its first directory. */
static int tiff_orientation(const uint8_t *at, size_t size) {
    int big = size > 8 && at[0] == 'M';
    unsigned from, entries;

    if (size < 8 || (memcmp(at, "II*\0", 4) && memcmp(at, "MM\0*", 4)))
        return 1;
    from = number(at + 4, 4, big);
    if (from > size || size - from < 2)
        return 1;
    entries = number(at + from, 2, big);
    for (unsigned i = 0; i < entries && 12 * (size_t)(i + 1) + 2 <= size - from; i++) {
        const uint8_t *entry = at + from + 2 + 12 * (size_t)i;
        unsigned value = number(entry + 8, 2, big);

        if (number(entry, 2, big) == 0x0112)
            return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

int jpeg_orientation(const uint8_t *bytes, size_t size) {
    size_t at = 2;

    if (size < 4 || bytes[0] != 0xff || bytes[1] != 0xd8)
        return 1;
    while (size - at >= 4 && bytes[at] == 0xff && bytes[at + 1] != 0xda) {
        size_t length = number(bytes + at + 2, 2, 1);

        if (length < 2 || length > size - at - 2)
            return 1;
        if (bytes[at + 1] == 0xe1 && length >= 8 && !memcmp(bytes + at + 4, "Exif\0", 6))
            return tiff_orientation(bytes + at + 10, length - 8);
        at += 2 + length;
    }
    return 1;
}

#ifdef PTQ_HAVE_stb

/* Pixels of R G B A as they are to be seen; the sizes change places where the picture lay. NULL
   without memory. What was given is released. */
static uint8_t *turn(uint8_t *pixels, int *width, int *height, int orientation) {
    int w = *width, h = *height, lying = orientation > 4;
    uint8_t *made;

    if (orientation == 1)
        return pixels;
    made = malloc(4 * (size_t)w * (size_t)h);
    *width = lying ? h : w;
    *height = lying ? w : h;
    for (int y = 0; made && y < *height; y++)
        for (int x = 0; x < *width; x++) {
            /* Which row of the file is at the top, and which column at the left. */
            int column = lying ? y : x, row = lying ? x : y;
            size_t from;

            if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
                column = w - 1 - column;
            if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
                row = h - 1 - row;
            from = (size_t)row * (size_t)w + (size_t)column;
            memcpy(made + 4 * ((size_t)y * (size_t)*width + (size_t)x), pixels + 4 * from, 4);
        }
    stbi_image_free(pixels);
    return made;
}

/* Pixels of R G B A, to be freed; NULL with a reason. */
static uint8_t *decode(const uint8_t *bytes, size_t size, int *width, int *height,
                       const char **reason) {
    uint8_t *pixels = NULL;
    int channels;

    if (!looks_like_picture(bytes, size)) {
        *reason = "no picture";
    } else if (!stbi_info_from_memory(bytes, (int)size, width, height, &channels)) {
        *reason = stbi_failure_reason();
    } else if (*width < 1 || *height < 1 || *width > MOST_SIDE || *height > MOST_SIDE ||
               (int64_t)*width * *height > MOST_PIXELS) {
        *reason = "too many pixels";
    } else {
        pixels = stbi_load_from_memory(bytes, (int)size, width, height, &channels, 4);
        *reason = stbi_failure_reason();
    }
    if (pixels)
        pixels = turn(pixels, width, height, jpeg_orientation(bytes, size));
    return pixels;
}

ptq_status picture_read(const char *path, const picture_rule *rule, uint8_t *out, ptq_error *err) {
    const char *reason = NULL;
    uint8_t *pixels;
    void *bytes = NULL;
    size_t size = 0;
    int width, height;
    ptq_status status = ptq_file_read(path, MOST_BYTES, NULL, &bytes, &size, err);

    if (status)
        return status;
    pixels = decode(bytes, size, &width, &height, &reason);
    ptq_bytes_free(bytes, NULL);
    if (!pixels)
        return ptq_error_set(err, PTQ_BAD_DATA, "%s: %s", path, reason ? reason : "damaged");
    if (out)
        picture_shrink(pixels, width, height, rule, out);
    free(pixels);
    return PTQ_OK;
}

#else

ptq_status picture_read(const char *path, const picture_rule *rule, uint8_t *out, ptq_error *err) {
    (void)rule;
    (void)out;
    return ptq_error_set(err, PTQ_UNSUPPORTED,
                         "%s: this program was built without stb_image, which reads pictures; "
                         "install it (Debian: libstb-dev) and build again",
                         path);
}

#endif

int looks_like_picture(const uint8_t *bytes, size_t size) {
    static const char *const begin[] = {"\xff\xd8\xff", "\x89PNG", "BM", "GIF8", "P5", "P6"};

    for (size_t i = 0; i < sizeof begin / sizeof *begin; i++)
        if (size >= strlen(begin[i]) && !memcmp(bytes, begin[i], strlen(begin[i])))
            return 1;
    return 0;
}

/* ---- Size ---- */

/* A part of a picture of R G B A pixels. */
typedef struct region {
    const uint8_t *pixels;
    int row; /* pixels from one line to the next */
    int width, height;
} region;

/* The largest part in the middle that has the shape wanted. */
static region middle(const uint8_t *pixels, int width, int height, const picture_rule *rule) {
    region part = {pixels, width, width, height};
    int64_t wide = (int64_t)width * rule->height, tall = (int64_t)height * rule->width;

    if (rule->stretch)
        return part;
    if (wide > tall)
        part.width = (int)(tall / rule->height);
    else
        part.height = (int)(wide / rule->width);
    part.width += !part.width;
    part.height += !part.height;
    part.pixels += 4 * ((size_t)((height - part.height) / 2) * (size_t)width +
                        (size_t)((width - part.width) / 2));
    return part;
}

/* The sums of R, G, B over what one pixel of the result covers, each source pixel weighed by the
   area of it that lies inside. In units of 1/width and 1/height of the result all borders are whole
   numbers, so sums are exact; the area is that of the region. What is transparent is white. */
static void sum_pixel(const region *from, const picture_rule *to, int at_x, int at_y,
                      uint64_t sum[3]) {
    int64_t left = (int64_t)at_x * from->width, right = left + from->width;
    int64_t top = (int64_t)at_y * from->height, bottom = top + from->height;

    sum[0] = sum[1] = sum[2] = 0;
    for (int64_t y = top / to->height; y * to->height < bottom; y++) {
        int64_t low = y * to->height > top ? y * to->height : top;
        int64_t high = (y + 1) * to->height < bottom ? (y + 1) * to->height : bottom;

        for (int64_t x = left / to->width; x * to->width < right; x++) {
            int64_t first = x * to->width > left ? x * to->width : left;
            int64_t last = (x + 1) * to->width < right ? (x + 1) * to->width : right;
            const uint8_t *p = from->pixels + 4 * (y * from->row + x);
            uint64_t weight = (uint64_t)((high - low) * (last - first));

            for (int c = 0; c < 3; c++)
                sum[c] += weight * ((uint64_t)p[c] * p[3] + 255u * (255u - p[3]));
        }
    }
}

void picture_shrink(const uint8_t *pixels, int width, int height, const picture_rule *rule,
                    uint8_t *out) {
    region from = middle(pixels, width, height, rule);
    uint64_t area = (uint64_t)from.width * (uint64_t)from.height * 255, sum[3];

    for (int y = 0; y < rule->height; y++)
        for (int x = 0; x < rule->width; x++) {
            sum_pixel(&from, rule, x, y, sum);
            if (rule->channels == 1)
                *out++ = (uint8_t)((77 * sum[0] + 150 * sum[1] + 29 * sum[2] + 128 * area) /
                                   (256 * area));
            else
                for (int c = 0; c < 3; c++)
                    *out++ = (uint8_t)((sum[c] + area / 2) / area);
        }
}
