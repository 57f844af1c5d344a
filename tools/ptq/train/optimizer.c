/* SGD with Nesterov momentum and AdamW, the average over steps, and the schedule of the rate. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/optimizer.h"

int optimizer_create(const optimizer_options *options, size_t size, const float *state,
                     optimizer *out) {
    memset(out, 0, sizeof *out);
    out->options = *options;
    out->size = size;
    out->first = calloc(size + 1, sizeof(float));
    out->second = calloc(size + 1, sizeof(float));
    out->average = calloc(size + 1, sizeof(float));
    if (!out->first || !out->second || !out->average) {
        optimizer_free(out);
        return 1;
    }
    memcpy(out->average, state, size * sizeof *state);
    return 0;
}

void optimizer_free(optimizer *o) {
    free(o->first);
    free(o->second);
    free(o->average);
    memset(o, 0, sizeof *o);
}

/* v = m v + g, then w -= rate (g + m v): as PyTorch writes Nesterov's momentum. */
static void sgd(optimizer *o, const trainer_param *p, const float *gradient, double rate,
                float *state) {
    double momentum = o->options.momentum, decay = p->decayed ? o->options.decay : 0;

    for (size_t i = p->offset; i < p->offset + p->count; i++) {
        double g = (double)gradient[i] + decay * (double)state[i];
        double v = momentum * (double)o->first[i] + g;

        o->first[i] = (float)v;
        state[i] = (float)((double)state[i] - rate * (g + momentum * v));
    }
}

static void adamw(optimizer *o, const trainer_param *p, const float *gradient, double rate,
                  float *state) {
    const double beta2 = 0.999, epsilon = 1e-8;
    double beta1 = o->options.momentum, decay = p->decayed ? o->options.decay : 0;
    double correct1 = 1 - pow(beta1, (double)o->steps), correct2 = 1 - pow(beta2, (double)o->steps);

    for (size_t i = p->offset; i < p->offset + p->count; i++) {
        double g = (double)gradient[i], w = (double)state[i];
        double m = beta1 * (double)o->first[i] + (1 - beta1) * g;
        double v = beta2 * (double)o->second[i] + (1 - beta2) * g * g;

        o->first[i] = (float)m;
        o->second[i] = (float)v;
        w -= rate * decay * w;
        state[i] = (float)(w - rate * (m / correct1) / (sqrt(v / correct2) + epsilon));
    }
}

/* The average follows fast at first, when the beginning counts for nothing. */
static void update_average(optimizer *o, const float *state) {
    double n = (double)o->steps, start = (1 + n) / (10 + n), keep = o->options.average;

    keep = keep < start ? keep : start;
    for (size_t i = 0; i < o->size; i++)
        o->average[i] = (float)(keep * (double)o->average[i] + (1 - keep) * (double)state[i]);
}

void optimizer_step(optimizer *o, const trainer_param *param, int params, const float *gradient,
                    double rate, float *state) {
    o->steps++;
    for (int i = 0; i < params; i++) {
        if (!param[i].trained)
            continue;
        if (o->options.kind == OPTIMIZER_SGD)
            sgd(o, &param[i], gradient, rate * (double)param[i].rate, state);
        else
            adamw(o, &param[i], gradient, rate * (double)param[i].rate, state);
    }
    update_average(o, state);
}

double schedule_factor(uint64_t step, uint64_t warmup, uint64_t total) {
    if (step < warmup)
        return (double)(step + 1) / (double)warmup;
    if (total <= warmup)
        return 1;
    return 0.5 *
           (1 + cos(3.14159265358979324 * (double)(step - warmup) / (double)(total - warmup)));
}
