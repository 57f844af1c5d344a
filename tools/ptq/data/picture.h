/* Single pictures: decoding, and bringing them to a size. */
#ifndef PTQ_TOOL_PICTURE_H
#define PTQ_TOOL_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include "ptq.h"

/* What a picture becomes. Its shorter side is brought to the size and the middle is kept, or with
   `stretch` all of it is squeezed into the size; each pixel is the mean of the area that it covers,
   rounded to nearest. What is transparent shows white. One channel: grey, (77 R + 150 G + 29 B) /
   256. A JPEG's orientation mark is obeyed. */
typedef struct picture_rule {
    int height, width, channels, stretch;
} picture_rule;

/* H x W x C bytes. PTQ_BAD_DATA with the reason where the file is no picture that can be read. */
ptq_status picture_read(const char *path, const picture_rule *rule, uint8_t *out, ptq_error *err);

/* Whether bytes begin like a picture: JPEG, PNG, BMP, GIF, PGM or PPM. */
int looks_like_picture(const uint8_t *bytes, size_t size);

/* The orientation in a JPEG file's EXIF block, 1 to 8; 1 where it has none. */
int jpeg_orientation(const uint8_t *bytes, size_t size);

/* The part above that needs no file: R G B A pixels of w x h to the rule's. */
void picture_shrink(const uint8_t *pixels, int width, int height, const picture_rule *rule,
                    uint8_t *out);

#endif
