/* Groups of results, two places at a time: Arm's DSP instructions and Helium. See opening.h. */
#ifndef PTQ_STRIPS_PAIRS_H
#define PTQ_STRIPS_PAIRS_H

#include "export/strips/opening.h"

/* [section pairs] */
/* Four channels of `height` rows. Where a row has an odd number of places, the last but one is
   computed twice. */
NET_INLINE void net_group(const net_strip *s, int height, uint8_t *y, int channel)
{
    const net_conv *c = s->conv;
    const int x1 = c->stride[1] * c->in[2];
    const net_value *row = net_rows, *x, *end;
    for (; height > 0; height--, row += c->stride[0] * s->row) {
        end = row + c->out[1] / 2 * 2 * x1;
        for (x = row; x < end; x += 2 * x1, y += 2 * s->step)
            net_places(s, x, y, channel);
        if (c->out[1] % 2) {
            net_places(s, x - x1, y - s->step, channel);
            y += s->step;
        }
    }
}

/* [section end] */
#endif
