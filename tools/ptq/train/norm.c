/* Batch norm forward and backward, and the sums over a batch that it and step sizes take. */
#include <math.h>

#include "train/units.h"

static void set_norm(const trainer *t, unit *u, int c, double mean, double variance) {
    double scale;

    u->inverse[c] = 1 / sqrt(variance + (double)u->norm->epsilon);
    scale = (double)t->state[u->gamma + (size_t)c] * u->inverse[c];
    u->t.scale[c] = u->t.a[c] = (float)scale;
    u->t.shift[c] = (float)((double)t->state[u->beta + (size_t)c] - mean * scale);
}

static double norm_count(const trainer *t, const unit *u) {
    return (double)t->images * u->shape[0] * u->shape[1];
}

/* Sums are taken around the running mean: a variance as a difference of two large numbers would
   lose its digits. */
void norm_finish(trainer *t, unit *u) {
    double n = norm_count(t, u), share = (double)t->options.momentum;

    for (int c = 0; c < u->shape[2]; c++) {
        float *mean = &t->state[u->mean + (size_t)c],
              *variance = &t->state[u->variance + (size_t)c];
        double off = over_shards(u->sum, c, u->shape[2]) / n;
        double spread = over_shards(u->square, c, u->shape[2]) / n - off * off;

        if (t->options.frozen_norm) {
            set_norm(t, u, c, (double)*mean, (double)*variance);
            continue;
        }
        spread = spread > 0 ? spread : 0;
        set_norm(t, u, c, (double)u->pivot[c] + off, spread);
        *mean = (float)((double)*mean + share * off);
        if (n > 1)
            *variance = (float)((1 - share) * (double)*variance + share * spread * n / (n - 1));
        u->pivot[c] += (float)off;
    }
}

/* The gradient through the batch's own mean and variance (Ioffe and Szegedy 2015,
   https://arxiv.org/abs/1502.03167, 3) as a function of dv and y. `pivot` now holds the mean, up to
   a rounding that the scale's own computation shares. */
void norm_finish_gradient(trainer *t, unit *u) {
    double n = norm_count(t, u);

    for (int c = 0; c < u->shape[2]; c++) {
        double a = (double)u->t.scale[c], inverse = u->inverse[c], mean = (double)u->pivot[c];
        double s = over_shards(u->sum, c, u->shape[2]);
        double product = over_shards(u->square, c, u->shape[2]);

        t->gradient[u->gamma + (size_t)c] = (float)(product * inverse);
        t->gradient[u->beta + (size_t)c] = (float)s;
        if (t->options.frozen_norm)
            continue;
        u->t.b[c] = (float)(-a * inverse * inverse * product / n);
        u->t.d[c] = (float)(-a * s / n + a * inverse * inverse * mean * product / n);
    }
}

void sum_gradient(const trainer *t, const unit *u, int image, int shard) {
    const float *y = image_of(u, u->y, image), *dy = image_of(u, u->dy, image);
    size_t at = (size_t)shard * channels_of(u);
    int pixels = u->shape[0] * u->shape[1];

    if (u->norm)
        t->kernel->gradient_moments(&u->t, y, dy, u->pivot, pixels, u->shape[2], u->sum + at,
                                    u->square + at);
    if (u->q)
        u->step_sum[shard] += t->kernel->step_gradient(&u->t, y, dy, pixels, u->shape[2],
                                                       u->outside_sum + 2 * (size_t)shard);
}
