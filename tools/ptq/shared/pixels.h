/* How pixels become a network's input: as options say it, and whether a network's own numbers fit
   it. */
#ifndef PTQ_TOOL_PIXELS_H
#define PTQ_TOOL_PIXELS_H

#include "ptq.h"

/* The value of --mean or --std: "A,B,C", or one number for all channels, of at least `least`. 0, or 1
   after an error. */
int read_channels(const char *option, const char *text, int channels, float least, float *out);

/* The reverse, of the model's mean or std times `factor`: one number if all are equal. */
void list_channels(const ptq_model *model, const float *number, double factor, char *text,
                   size_t size);

/* Whether mean or std are other than 0 and 1; and whether they are those of pixels 0..1, where
   they are applied to pixels 0..255. */
int scales_pixels(const ptq_model *model);
int scales_unit_pixels(const ptq_model *model);

/* One warning, with the remedy, where a float model's numbers give away that it was trained on
   pixels in another scale than it gets: by mean and std, by the statistics of a batch norm on the
   input or behind the first layer, or by the weights of that layer. Any other model: nothing.
   `remedy`: what applies --mean and --std, such as "import it again". */
void warn_of_pixels(const char *path, const ptq_model *model, const char *remedy);

/* The same of a file, as it is before anything is fused. 0, or 1 if it cannot be read. */
int warn_of_pixels_in(const char *path, const char *remedy);

#endif
