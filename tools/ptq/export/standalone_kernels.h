/* The kernels of headers that "ptq export --c-header --standalone" writes, and their source: the
   tool copies the sections that a network needs, with the network's name in place of `net`. The
   scalar kernels of ptq.h are the truth; these return the same bytes, by integers alone.

   A section reaches from its marker to the next one. C99 and C++11. */
#ifndef PTQ_STANDALONE_KERNELS_H
#define PTQ_STANDALONE_KERNELS_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* [section reals] */
#if INT_MAX < 2147483647
#error "products of codes are computed in int, which must have 32 bits"
#endif

/* ---- Real numbers ----

   Scales are real numbers, and results depend on how products with them are rounded: as IEEE single
   precision does, to nearest, half to even. Done in integers here, no compiler option and no
   missing floating-point unit can change a bit. */

/* m * 2^e with |m| <= 2^24. */
typedef struct net_real {
    int32_t m;
    int e;
} net_real;

/* From the bits of a single-precision number: 0 or normal. */
static net_real net_decode(uint32_t bits)
{
    net_real r;
    r.m = (int32_t)((bits & 0x7fffff) | 0x800000);
    r.e = (int)((bits >> 23) & 255) - 150;
    if (!(bits & 0x7fffffff))
        r.m = 0;
    if (bits >> 31)
        r.m = -r.m;
    return r;
}

static uint64_t net_magnitude(int64_t v)
{
    return v < 0 ? (uint64_t)0 - (uint64_t)v : (uint64_t)v;
}

static int64_t net_signed(uint64_t magnitude, int negative)
{
    return negative ? -(int64_t)magnitude : (int64_t)magnitude;
}

/* u / 2^n, rounded half to even; u < 2^63. */
static uint64_t net_halve(uint64_t u, int n)
{
    uint64_t rest, half;
    if (n <= 0 || n > 63)
        return n <= 0 ? u : 0;
    rest = u & (((uint64_t)1 << n) - 1);
    half = (uint64_t)1 << (n - 1);
    u >>= n;
    return u + (rest > half || (rest == half && (u & 1)) ? 1 : 0);
}

/* How many bits u has, without its leading zeros; in words of 32 bits, which are quick to shift. */
static int net_length(uint64_t u)
{
    uint32_t word = (uint32_t)(u >> 32);
    int length = word ? 32 : 0, step;
    word = word ? word : (uint32_t)u;
    for (step = 16; step; step /= 2)
        if (word >> step) {
            word >>= step;
            length += step;
        }
    return length + (word ? 1 : 0);
}

/* v * 2^e, rounded to 24 bits. */
static net_real net_round(int64_t v, int e)
{
    uint64_t u = net_magnitude(v);
    int drop = u >> 24 ? net_length(u) - 24 : 0;
    net_real r;
    r.m = (int32_t)(drop ? net_signed(net_halve(u, drop), v < 0) : v);
    r.e = e + drop;
    return r;
}

/* The real number that an accumulator and its multiplier stand for. */
static net_real net_scaled(int32_t acc, uint32_t multiplier)
{
    net_real a = net_round(acc, 0), m = net_decode(multiplier);
    return net_round((int64_t)a.m * m.m, a.e + m.e);
}

/* [section nearest] */
/* The nearest integer, half to even; beyond -512..512 one of these. */
static int32_t net_nearest(net_real r)
{
    uint64_t u = net_magnitude(r.m);
    if (r.e > 0 && u)
        u = r.e > 9 ? 512 : u << r.e;
    u = net_halve(u, -r.e);
    return (int32_t)net_signed(u > 512 ? 512 : u, r.m < 0);
}

/* [section clamp] */
static int32_t net_clamped(int32_t code, int32_t low, int32_t high)
{
    return code < low ? low : code > high ? high : code;
}

/* [section requantize] */
/* From an accumulator to a code: clamp(round(acc * multiplier) + zero_point). */
static int32_t net_requantize(int32_t acc, uint32_t multiplier, int32_t zero_point, int32_t low,
                              int32_t high)
{
    return net_clamped(net_nearest(net_scaled(acc, multiplier)) + zero_point, low, high);
}

/* [section logits] */
static float net_float(net_real r)
{
    uint32_t bits = 0;
    int64_t u = (int64_t)net_magnitude(r.m);
    float value;
    if (u) {
        while (u < 1 << 23)
            u *= 2, r.e--;
        if (u == 1 << 24)
            u /= 2, r.e++;
        bits = r.e > 104 ? 0x7f800000u : ((uint32_t)(r.e + 150) << 23 | ((uint32_t)u & 0x7fffff));
        bits |= r.m < 0 ? 0x80000000u : 0;
    }
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* [section codes] */
/* ---- Codes ---- */

/* How the bytes of a tensor are read: flip is 128 where they are two's complement, else 0. */
typedef struct net_codes {
    int flip, zero_point;
} net_codes;

static int32_t net_load(uint8_t byte, net_codes q)
{
    return (byte ^ q.flip) - q.flip;
}

/* [section pixels] */
/* Preprocessing and quantization of the image, as a table of 256 codes for each channel, or one
   table for all: step 256 or 0. */
static void net_pixels(const uint8_t *table, int step, const uint8_t *pixels, int n, int channels,
                       uint8_t *y)
{
    int i, c;
    for (i = 0; i < n; i += channels)
        for (c = 0; c < channels; c++)
            y[i + c] = table[c * step + pixels[i + c]];
}

/* [section weights] */
/* ---- Weights ---- */

/* Weights lie as output channel, row, column, input channel. `dot` is the sum of x w over the n
   weights of one output channel. */
typedef struct net_weights {
    int32_t (*dot)(const struct net_weights *w, int channel, const int16_t *x, int n);
    const void *code;
    int channel_bytes;
    int bits;       /* of one code where they are packed */
    int flip;       /* packed: the sign bit, or 0 where codes are unsigned */
    int zero_point;
    const int32_t *bias;        /* NULL: none */
    const uint32_t *multiplier; /* scale_in * scale_weight / scale_out, as IEEE single precision */
} net_weights;

/* [section accumulate] */
static int32_t net_accumulate(const net_weights *w, int channel, const int16_t *x, int n)
{
    return w->dot(w, channel, x, n) + (w->bias ? w->bias[channel] : 0);
}

/* [section s8] */
static int32_t net_dot_s8(const net_weights *w, int channel, const int16_t *x, int n)
{
    const int8_t *code = (const int8_t *)w->code + channel * w->channel_bytes;
    int32_t sum = 0;
    int i;
    for (i = 0; i + 4 <= n; i += 4) /* a loop of one product is mostly loop */
        sum += x[i] * code[i] + x[i + 1] * code[i + 1] + x[i + 2] * code[i + 2] +
               x[i + 3] * code[i + 3];
    for (; i < n; i++)
        sum += x[i] * code[i];
    return sum;
}

/* [section u8] */
static int32_t net_dot_u8(const net_weights *w, int channel, const int16_t *x, int n)
{
    const uint8_t *code = (const uint8_t *)w->code + channel * w->channel_bytes;
    int32_t sum = 0;
    int i;
    for (i = 0; i < n; i++)
        sum += x[i] * (code[i] - w->zero_point);
    return sum;
}

/* [section s4] */
/* Two signed codes a byte, the first in the lower half. */
static int32_t net_dot_s4(const net_weights *w, int channel, const int16_t *x, int n)
{
    const uint8_t *pair = (const uint8_t *)w->code + channel * w->channel_bytes;
    int32_t sum = 0;
    int i;
    for (i = 0; i + 2 <= n; i += 2, pair++)
        sum += x[i] * (((*pair & 15) ^ 8) - 8) + x[i + 1] * ((*pair >> 4 ^ 8) - 8);
    if (i < n)
        sum += x[i] * (((*pair & 15) ^ 8) - 8);
    return sum;
}

/* [section packed] */
/* Codes of 2 to 7 bits stay packed, least significant bits first. */
static int32_t net_dot_packed(const net_weights *w, int channel, const int16_t *x, int n)
{
    const uint8_t *byte = (const uint8_t *)w->code + channel * w->channel_bytes;
    uint32_t window = 0, mask = ((uint32_t)1 << w->bits) - 1;
    int32_t sum = 0, offset = w->flip + w->zero_point;
    int i, held = 0;
    for (i = 0; i < n; i++) {
        if (held < w->bits) {
            window |= (uint32_t)*byte++ << held;
            held += 8;
        }
        sum += x[i] * ((int32_t)((window & mask) ^ (uint32_t)w->flip) - offset);
        window >>= w->bits;
        held -= w->bits;
    }
    return sum;
}

/* [section fma] */
/* v / 2^n; where a bit is lost the last one is set, so that rounding later is still right. */
static int64_t net_sticky(int64_t v, int n)
{
    uint64_t u = net_magnitude(v);
    if (n > 63)
        u = u ? 1 : 0;
    else if (n > 0)
        u = u >> n | (u & (((uint64_t)1 << n) - 1) ? 1 : 0);
    return net_signed(u, v < 0);
}

/* code * ratio + r, rounded once. The larger exponent comes down as far as 64 bits allow, the
   smaller one up for the rest. */
static net_real net_fma(int32_t code, net_real ratio, net_real r)
{
    int64_t p = (int64_t)code * ratio.m, t = r.m;
    int e = ratio.e, down;
    if (!p || !t)
        return p ? net_round(p, e) : r;
    if (ratio.e >= r.e) {
        down = ratio.e - r.e < 29 ? ratio.e - r.e : 29;
        e = ratio.e - down;
        return net_round(p * ((int64_t)1 << down) + net_sticky(t, e - r.e), e);
    }
    down = r.e - ratio.e < 37 ? r.e - ratio.e : 37;
    e = r.e - down;
    return net_round(t * ((int64_t)1 << down) + net_sticky(p, e - ratio.e), e);
}

/* [section adder] */
/* ---- Addition ---- */

/* y = round(fma(a, ratio[0], fma(b, ratio[1], shift))), every fma rounded once. */
typedef struct net_adder {
    uint32_t ratio[2], shift; /* IEEE single precision */
    int32_t low, high;
} net_adder;

/* [section add] */
static int32_t net_add(const net_adder *s, int32_t a, int32_t b)
{
    net_real inner = net_fma(b, net_decode(s->ratio[1]), net_decode(s->shift));
    return net_clamped(net_nearest(net_fma(a, net_decode(s->ratio[0]), inner)), s->low, s->high);
}

/* [section add_layer] */
/* The result may be written over the first operand. */
static void net_addition(const net_adder *s, net_codes qa, const uint8_t *a, net_codes qb,
                         const uint8_t *b, int n, uint8_t *y)
{
    int i;
    for (i = 0; i < n; i++)
        y[i] = (uint8_t)net_add(s, net_load(a[i], qa), net_load(b[i], qb));
}

/* [section conv] */
/* ---- Convolution ---- */

typedef struct net_conv {
    net_weights weights;
    net_codes input;
    int32_t zero_point, low, high; /* of its own result, before the residual */
    net_codes residual;
    int residual_first; /* the order of operands is part of the result */
    net_adder adder;
    int in[3], out[3]; /* height, width, channels */
    int kernel[2], stride[2], pad[2], dilation[2];
    int groups;
} net_conv;

/* [section conv_any] */
/* The inputs under the kernel at one place, less their zero point: taps outside the image are 0. */
static void net_gather(const net_conv *c, const uint8_t *x, int oy, int ox, int first,
                       int16_t *patch)
{
    int deep = c->in[2] / c->groups, u, v, i;
    for (u = 0; u < c->kernel[0]; u++)
        for (v = 0; v < c->kernel[1]; v++) {
            int row = oy * c->stride[0] - c->pad[0] + u * c->dilation[0];
            int column = ox * c->stride[1] - c->pad[1] + v * c->dilation[1];
            if (row < 0 || row >= c->in[0] || column < 0 || column >= c->in[1]) {
                for (i = 0; i < deep; i++)
                    *patch++ = 0;
            } else {
                const uint8_t *from = x + (row * c->in[1] + column) * c->in[2] + first;
                for (i = 0; i < deep; i++)
                    *patch++ = (int16_t)(net_load(from[i], c->input) - c->input.zero_point);
            }
        }
}

/* One output channel at one place; y holds the residual where there is one. */
static int32_t net_conv_code(const net_conv *c, int channel, const int16_t *patch, int taps,
                             const uint8_t *residual)
{
    int32_t acc = net_accumulate(&c->weights, channel, patch, taps);
    int32_t code = net_requantize(acc, c->weights.multiplier[channel], c->zero_point, c->low,
                                  c->high);
    int32_t other;
    if (!residual)
        return code;
    other = net_load(*residual, c->residual);
    return c->residual_first ? net_add(&c->adder, other, code) : net_add(&c->adder, code, other);
}

/* `residual` may be NULL, and may be y. */
static void net_conv2d(const net_conv *c, const uint8_t *x, const uint8_t *residual, uint8_t *y,
                       int16_t *patch)
{
    int deep = c->in[2] / c->groups, each = c->out[2] / c->groups;
    int taps = deep * c->kernel[0] * c->kernel[1], oy, ox, g, o, at = 0;
    for (oy = 0; oy < c->out[0]; oy++)
        for (ox = 0; ox < c->out[1]; ox++)
            for (g = 0; g < c->groups; g++) {
                net_gather(c, x, oy, ox, g * deep, patch);
                for (o = g * each; o < (g + 1) * each; o++, at++)
                    y[at] = (uint8_t)net_conv_code(c, o, patch, taps,
                                                   residual ? residual + at : NULL);
            }
}

/* [section dense] */
/* ---- Dense layers ---- */

typedef struct net_dense {
    net_weights weights;
    net_codes input;
    int32_t zero_point, low, high;
    int inputs, outputs;
} net_dense;

static void net_dense_patch(const net_dense *d, const uint8_t *x, int16_t *patch)
{
    int i;
    for (i = 0; i < d->inputs; i++)
        patch[i] = (int16_t)(net_load(x[i], d->input) - d->input.zero_point);
}

/* [section dense_codes] */
static void net_dense_codes(const net_dense *d, const uint8_t *x, uint8_t *y, int16_t *patch)
{
    int o;
    net_dense_patch(d, x, patch);
    for (o = 0; o < d->outputs; o++)
        y[o] = (uint8_t)net_requantize(net_accumulate(&d->weights, o, patch, d->inputs),
                                       d->weights.multiplier[o], d->zero_point, d->low, d->high);
}

/* [section dense_logits] */
static void net_dense_logits(const net_dense *d, const uint8_t *x, float *logits, int16_t *patch)
{
    int o;
    net_dense_patch(d, x, patch);
    for (o = 0; o < d->outputs; o++)
        logits[o] = net_float(net_scaled(net_accumulate(&d->weights, o, patch, d->inputs),
                                         d->weights.multiplier[o]));
}

/* [section code_logits] */
/* Codes back to real numbers: scale * (code - zero_point). */
static void net_code_logits(const uint8_t *x, net_codes q, uint32_t scale, int n, float *logits)
{
    int i;
    for (i = 0; i < n; i++)
        logits[i] = net_float(net_scaled(net_load(x[i], q) - q.zero_point, scale));
}

/* [section window] */
/* ---- Pooling ---- */

/* `code` is the result of one window, whose first channel lies at x: of the rows from rows[0] on,
   before rows[1], of which rows[2] count in an average; columns likewise. */
typedef struct net_pool {
    int32_t (*code)(const struct net_pool *p, const uint8_t *x, const int *rows,
                    const int *columns);
    net_codes input;
    int32_t zero_point, low, high;
    int in[3], out[3];
    int kernel[2], stride[2], pad[2];
    int counted[2];    /* average: rows and columns with the padding behind; 0: none counts */
    uint32_t scale[2]; /* average: of the input and the result; of the whole image: the multiplier */
} net_pool;

/* Rows or columns of the window at `o` that lie inside the image. */
static void net_window(const net_pool *p, int axis, int o, int *rows)
{
    int first = o * p->stride[axis] - p->pad[axis], last = first + p->kernel[axis];
    int counted = p->counted[axis];
    rows[0] = first < 0 ? 0 : first;
    rows[1] = last > p->in[axis] ? p->in[axis] : last;
    rows[2] = counted ? (last < counted ? last : counted) - first : rows[1] - rows[0];
}

static void net_pool2d(const net_pool *p, const uint8_t *x, uint8_t *y)
{
    int oy, ox, c, rows[3], columns[3];
    for (oy = 0; oy < p->out[0]; oy++)
        for (ox = 0; ox < p->out[1]; ox++) {
            net_window(p, 0, oy, rows);
            net_window(p, 1, ox, columns);
            for (c = 0; c < p->out[2]; c++)
                *y++ = (uint8_t)p->code(p, x + c, rows, columns);
        }
}

/* [section maximum] */
static int32_t net_maximum(const net_pool *p, const uint8_t *x, const int *rows,
                           const int *columns)
{
    int32_t most = INT32_MIN;
    int u, v;
    for (u = rows[0]; u < rows[1]; u++)
        for (v = columns[0]; v < columns[1]; v++) {
            int32_t code = net_load(x[(u * p->in[1] + v) * p->in[2]], p->input);
            most = code > most ? code : most;
        }
    return most;
}

/* [section whole_average] */
static int32_t net_whole_average(const net_pool *p, const uint8_t *x, const int *rows,
                                 const int *columns)
{
    int32_t sum = 0;
    int i, pixels = rows[1] * columns[1];
    for (i = 0; i < pixels; i++)
        sum += net_load(x[i * p->in[2]], p->input) - p->input.zero_point;
    return net_requantize(sum, p->scale[0], p->zero_point, p->low, p->high);
}

/* [section average] */
/* a / b, rounded to 24 bits; b is not 0. */
static net_real net_quotient(net_real a, net_real b)
{
    uint64_t u = net_magnitude(a.m), divisor = net_magnitude(b.m), q;
    int up = 63 - net_length(u);
    if (!u)
        return a;
    u <<= up;
    q = u / divisor;
    return net_round(net_signed(q | (q * divisor != u ? 1 : 0), a.m < 0), a.e - up - b.e);
}

/* Of a window: round(sum of scale[0] (code - zero point) / taps / scale[1] + zero_point), every
   operation rounded. */
static int32_t net_average(const net_pool *p, const uint8_t *x, const int *rows,
                           const int *columns)
{
    int taps = rows[2] * columns[2], u, v;
    net_real sum = net_round(0, 0);
    for (u = rows[0]; u < rows[1]; u++)
        for (v = columns[0]; v < columns[1]; v++) {
            int32_t code = net_load(x[(u * p->in[1] + v) * p->in[2]], p->input);
            sum = net_fma(1, net_scaled(code - p->input.zero_point, p->scale[0]), sum);
        }
    sum = net_quotient(net_quotient(sum, net_round(taps, 0)), net_decode(p->scale[1]));
    sum = net_fma(1, sum, net_round(p->zero_point, 0));
    return net_clamped(net_nearest(sum), p->low, p->high);
}

/* [section relu] */
static void net_relu(net_codes q, int32_t low, int32_t high, const uint8_t *x, int n, uint8_t *y)
{
    int i;
    for (i = 0; i < n; i++)
        y[i] = (uint8_t)net_clamped(net_load(x[i], q), low, high);
}

/* [section concat] */
/* The channels of one operand into their place in every pixel of the result, n bytes; a pixel of it
   has `all` channels. `code` has a code for each, or is NULL where they stay the same. */
static void net_concat(const uint8_t *code, const uint8_t *x, int channels, int all, int n,
                       uint8_t *y)
{
    int i, c;
    for (i = 0; i < n; i += all)
        for (c = 0; c < channels; c++, x++)
            y[i + c] = code ? code[*x] : *x;
}

/* [section lookup] */
/* A function of one number, as a table of 256 codes for all of the n, or one for each channel. The
   result may be written over x. */
static void net_lookup(const uint8_t *table, const uint8_t *x, int n, int tables, uint8_t *y)
{
    int i;
    for (i = 0; i < n; i++)
        y[i] = table[i % tables * 256 + x[i]];
}

/* [section product] */
/* round((a - its zero point) (b - its zero point) multiplier + zero_point), every operation rounded.
   The n codes of b stand for all of a's, again and again. The result may be written over a. */
static void net_product(uint32_t multiplier, int32_t zero_point, int32_t low, int32_t high,
                        net_codes qa, const uint8_t *a, int count, net_codes qb, const uint8_t *b,
                        int n, uint8_t *y)
{
    net_real zero = net_round(zero_point, 0);
    int i;
    for (i = 0; i < count; i++) {
        int32_t product = (net_load(a[i], qa) - qa.zero_point) *
                          (net_load(b[i % n], qb) - qb.zero_point);
        net_real sum = net_fma(1, net_scaled(product, multiplier), zero);
        y[i] = (uint8_t)net_clamped(net_nearest(sum), low, high);
    }
}

/* [section end] */
#endif
