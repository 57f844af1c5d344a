/* shapes10: a data set of ten drawn objects, worth learning, that needs no download.

   Each picture shows one object at a random place, size, angle and stretch, in random colours on a
   textured ground, with lines across it, under uneven light, blurred and noisy. Everything is
   computed in integers from one PCG32 stream for each set, so that a seed gives the same bytes on
   every machine and with every compiler, and a larger set begins with the smaller one.

   Units: pictures are addressed in 256ths of a pixel; a colour value is 256 times the byte that it
   becomes; an object is drawn in coordinates of its own, in which UNIT is the radius of the circle
   around it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cifar_files.h"

enum { ARROW, CRESCENT, CROSS, DISC, HEART, PENTAGON, RING, SQUARE, STAR, TRIANGLE, CLASSES };

enum {
    UNIT = 4096,
    PIXEL = 256,
    SAMPLES = 4, /* of coverage along each side of a pixel */
    FULL = SAMPLES * SAMPLES,
    WHITE = 255 * 256
};

static const char *const class_name[CLASSES] = {"arrow", "crescent", "cross", "disc",
                                                "heart", "pentagon", "ring",  "square",
                                                "star",  "triangle"};

typedef struct colour {
    int value[3];
} colour;

typedef struct picture {
    int value[3][CIFAR_PLANE];
} picture;

/* Coverage of each pixel by something drawn over the picture, 0..FULL. */
typedef struct mask {
    uint8_t cover[CIFAR_PLANE];
} mask;

/* ---- Random choices ---- */

static int between(ptq_rng *rng, int low, int high) {
    return low + (int)ptq_rng_below(rng, (uint32_t)(high - low + 1));
}

static int clamp(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

static colour any_colour(ptq_rng *rng) {
    colour made;
    int c;

    for (c = 0; c < 3; c++)
        made.value[c] = between(rng, 0, WHITE);
    return made;
}

/* A colour at most `spread` away from another in each channel. */
static colour near_colour(ptq_rng *rng, colour other, int spread) {
    int c;

    for (c = 0; c < 3; c++)
        other.value[c] = clamp(other.value[c] + between(rng, -spread, spread), 0, WHITE);
    return other;
}

static int colour_distance(colour a, colour b) {
    int sum = 0, c;

    for (c = 0; c < 3; c++)
        sum += abs(a.value[c] - b.value[c]);
    return sum;
}

/* A direction with length UNIT, nearly uniform. The circle's rational parametrization by the
   tangent of half the angle covers an eighth of a turn to either side; quarter turns may follow. No
   sine is asked for: its last bit differs between C libraries. */
static void any_direction(ptq_rng *rng, int *x, int *y) {
    int t = between(rng, -424, 424); /* tan(pi / 8) is 424 / 1024 */
    int along = (1024 * 1024 - t * t) * 4 / ((1024 * 1024 + t * t) / 1024);
    int across = 2 * 1024 * t * 4 / ((1024 * 1024 + t * t) / 1024);

    switch (between(rng, 0, 3)) {
    case 0:
        *x = along, *y = across;
        break;
    case 1:
        *x = -across, *y = along;
        break;
    case 2:
        *x = -along, *y = -across;
        break;
    default:
        *x = across, *y = -along;
    }
}

/* ---- Grounds: textures between two colours ---- */

enum { LATTICE = 13 }; /* the smallest cells reach across the picture and the largest phase */

/* A texture is a number 0..256 for each pixel: the share of the second colour. */
typedef struct texture {
    int kind;
    int x, y;   /* direction */
    int period; /* pixels, in 256ths */
    int phase;
    int lattice[LATTICE][LATTICE];
} texture;

enum { PLAIN, GRADIENT, STRIPES, CHECKER, CLOUDS, BLOBS, TEXTURES };

static texture any_texture(ptq_rng *rng) {
    texture made;
    int i, k;

    made.kind = between(rng, 0, TEXTURES - 1);
    any_direction(rng, &made.x, &made.y);
    made.period = between(rng, 4 * PIXEL, 12 * PIXEL);
    made.phase = between(rng, 0, 12 * PIXEL);
    for (i = 0; i < LATTICE; i++)
        for (k = 0; k < LATTICE; k++)
            made.lattice[i][k] = between(rng, 0, 256);
    return made;
}

/* Position along a direction, from the picture's middle, in 256ths of a pixel. */
static int along(int x, int y, int direction_x, int direction_y) {
    const int middle = CIFAR_SIDE * PIXEL / 2;

    return ((x - middle) * direction_x + (y - middle) * direction_y) / UNIT;
}

/* 0 in one half of each period and 256 in the other, with a soft edge one pixel wide. */
static int wave(int position, int period) {
    int rest = ((position % period) + period) % period;
    int from_edge = rest < period / 2 ? rest : period - rest;

    return clamp(from_edge - period / 4 + PIXEL / 2, 0, 256);
}

/* Random values on a lattice with bilinear interpolation between them. */
static int noise_at(const texture *t, int x, int y) {
    int cell = t->period / 2 + 2 * PIXEL, at_x = x + t->phase, at_y = y + t->phase;
    int i = at_y / cell, k = at_x / cell;
    int down = at_y % cell, right = at_x % cell;
    int above = t->lattice[i][k] * (cell - right) + t->lattice[i][k + 1] * right;
    int below = t->lattice[i + 1][k] * (cell - right) + t->lattice[i + 1][k + 1] * right;

    return (above / cell * (cell - down) + below / cell * down) / cell;
}

static int texture_at(const texture *t, int x, int y) {
    int position = along(x, y, t->x, t->y);

    switch (t->kind) {
    case GRADIENT:
        return clamp(128 + position / 32, 0, 256);
    case STRIPES:
        return wave(position + t->phase, t->period);
    case CHECKER: {
        int a = wave(position + t->phase, t->period);
        int b = wave(along(x, y, -t->y, t->x) + t->phase, t->period);

        return (a * (256 - b) + b * (256 - a)) / 256;
    }
    case CLOUDS:
        return noise_at(t, x, y);
    case BLOBS:
        return clamp((noise_at(t, x, y) - 128) * 6 + 128, 0, 256);
    default:
        return 0;
    }
}

/* Puts a texture of two colours over the picture wherever the mask covers it. */
static void paint(picture *p, const mask *m, const texture *t, colour a, colour b) {
    int i, c;

    for (i = 0; i < CIFAR_PLANE; i++) {
        int x = i % CIFAR_SIDE * PIXEL + PIXEL / 2, y = i / CIFAR_SIDE * PIXEL + PIXEL / 2;
        int share = m->cover[i] ? texture_at(t, x, y) : 0, cover = m->cover[i];

        for (c = 0; c < 3 && cover; c++) {
            int over = (a.value[c] * (256 - share) + b.value[c] * share) / 256;

            p->value[c][i] = (p->value[c][i] * (FULL - cover) + over * cover) / FULL;
        }
    }
}

static void paint_plain(picture *p, const mask *m, colour a) {
    static const texture plain = {PLAIN, 0, 0, 1, 0, {{0}}};

    paint(p, m, &plain, a, a);
}

/* ---- Objects ---- */

typedef struct point {
    int x, y;
} point;

static const point triangle[] = {{0, -4096}, {3547, 2048}, {-3547, 2048}};
static const point square[] = {{2896, -2896}, {2896, 2896}, {-2896, 2896}, {-2896, -2896}};
static const point pentagon[] = {
    {0, -4096}, {3896, -1266}, {2408, 3314}, {-2408, 3314}, {-3896, -1266}};
static const point star[] = {{0, -4096},     {1083, -1491}, {3896, -1266}, {1753, 570},
                             {2408, 3314},   {0, 1843},     {-2408, 3314}, {-1753, 570},
                             {-3896, -1266}, {-1083, -1491}};
static const point cross[] = {{1250, -3800}, {1250, -1250},  {3800, -1250},  {3800, 1250},
                              {1250, 1250},  {1250, 3800},   {-1250, 3800},  {-1250, 1250},
                              {-3800, 1250}, {-3800, -1250}, {-1250, -1250}, {-1250, -3800}};
static const point arrow[] = {{0, -4000},    {3000, -500},  {1200, -500}, {1200, 3700},
                              {-1200, 3700}, {-1200, -500}, {-3000, -500}};

typedef struct outline {
    const point *corner;
    int corners;
} outline;

#define OUTLINE(name)                                                                              \
    { name, (int)(sizeof(name) / sizeof((name)[0])) }

/* Of the classes with corners. */
static const outline outlines[CLASSES] = {
    [ARROW] = OUTLINE(arrow),   [CROSS] = OUTLINE(cross), [PENTAGON] = OUTLINE(pentagon),
    [SQUARE] = OUTLINE(square), [STAR] = OUTLINE(star),   [TRIANGLE] = OUTLINE(triangle)};

/* Even-odd rule: how many edges cross the ray to the right of the point. */
static int in_outline(const outline *o, int x, int y) {
    int inside = 0, i;

    for (i = 0; i < o->corners; i++) {
        point a = o->corner[i], b = o->corner[i + 1 < o->corners ? i + 1 : 0];

        if ((a.y > y) == (b.y > y))
            continue;
        if (b.y > a.y ? (x - a.x) * (b.y - a.y) < (y - a.y) * (b.x - a.x)
                      : (x - a.x) * (b.y - a.y) > (y - a.y) * (b.x - a.x))
            inside = !inside;
    }
    return inside;
}

static int in_circle(int x, int y, int radius) { return x * x + y * y <= radius * radius; }

/* (x^2 + y^2 - 1)^3 <= x^2 y^3, y upwards, in a circle around it of 1.25 units. */
static int in_heart(int x, int y) {
    const int64_t one = 256;
    int64_t u = (int64_t)x * 5 / 64, v = -(int64_t)y * 5 / 64 + 24; /* from 4096 to 256 * 1.25 */
    int64_t base = u * u + v * v - one * one;

    return base * base * base <= u * u * v * v * v * one;
}

/* An object, and where on the picture it is. */
typedef struct object {
    int label;
    int thickness;    /* of the ring and the crescent, in UNITs */
    int x, y;         /* its middle, in 256ths of a pixel */
    int reach;        /* how far from the middle it may extend */
    int matrix[2][2]; /* from 256ths of a pixel to UNITs, times 256 */
} object;

/* Whether a point in the object's own coordinates belongs to it. */
static int in_object(const object *o, int x, int y) {
    if (!in_circle(x, y, UNIT + UNIT / 16))
        return 0;
    switch (o->label) {
    case DISC:
        return in_circle(x, y, UNIT * 7 / 8);
    case RING:
        return in_circle(x, y, UNIT * 15 / 16) && !in_circle(x, y, UNIT * 15 / 16 - o->thickness);
    case CRESCENT:
        return in_circle(x, y, UNIT) && !in_circle(x - o->thickness, y, UNIT - o->thickness / 4);
    case HEART:
        return in_heart(x, y);
    default:
        return in_outline(&outlines[o->label], x, y);
    }
}

/* The rotation and stretch are drawn for the inverse at once: from the picture to the object. */
static object any_object(ptq_rng *rng, int label, int smallest, int largest) {
    object made;
    int radius = between(rng, smallest, largest); /* in 256ths of a pixel */
    int stretch = between(rng, 208, 256);         /* of one axis */
    int margin = radius * 3 / 4;
    int cosine, sine, scale = UNIT * 256 / radius;

    any_direction(rng, &cosine, &sine);
    made.label = label;
    made.thickness = between(rng, UNIT * 5 / 16, UNIT * 9 / 16);
    made.reach = radius * 17 / 16;
    made.x = between(rng, margin, CIFAR_SIDE * PIXEL - margin);
    made.y = between(rng, margin, CIFAR_SIDE * PIXEL - margin);
    made.matrix[0][0] = cosine * scale / UNIT;
    made.matrix[0][1] = sine * scale / UNIT;
    made.matrix[1][0] = -sine * scale / stretch * 256 / UNIT;
    made.matrix[1][1] = cosine * scale / stretch * 256 / UNIT;
    return made;
}

static int in_object_at(const object *o, int x, int y) {
    int dx = x - o->x, dy = y - o->y;

    if (abs(dx) > o->reach || abs(dy) > o->reach)
        return 0;
    return in_object(o, (o->matrix[0][0] * dx + o->matrix[0][1] * dy) / 256,
                     (o->matrix[1][0] * dx + o->matrix[1][1] * dy) / 256);
}

static void cover_object(mask *m, const object *o) {
    const int step = PIXEL / SAMPLES;
    int i, s;

    for (i = 0; i < CIFAR_PLANE; i++) {
        int x = i % CIFAR_SIDE * PIXEL + step / 2, y = i / CIFAR_SIDE * PIXEL + step / 2;

        m->cover[i] = 0;
        if (abs(x - o->x) > o->reach + PIXEL || abs(y - o->y) > o->reach + PIXEL)
            continue;
        for (s = 0; s < FULL; s++)
            if (in_object_at(o, x + s % SAMPLES * step, y + s / SAMPLES * step))
                m->cover[i]++;
    }
}

/* A line across the picture with smooth edges, its width in 256ths of a pixel. */
static void cover_line(ptq_rng *rng, mask *m, int thinnest, int widest) {
    int x, y, i, half = between(rng, thinnest, widest) / 2;
    int offset = between(rng, -14 * PIXEL, 14 * PIXEL);

    any_direction(rng, &x, &y);
    for (i = 0; i < CIFAR_PLANE; i++) {
        int from =
            along(i % CIFAR_SIDE * PIXEL + PIXEL / 2, i / CIFAR_SIDE * PIXEL + PIXEL / 2, x, y) -
            offset;

        m->cover[i] = (uint8_t)(clamp(half - abs(from) + PIXEL / 2, 0, PIXEL) * FULL / PIXEL);
    }
}

/* ---- The picture ---- */

static void draw_lines(ptq_rng *rng, picture *p, int most, int thinnest, int widest) {
    mask m;
    int count = between(rng, 0, most);

    while (count-- > 0) {
        cover_line(rng, &m, thinnest, widest);
        paint_plain(p, &m, any_colour(rng));
    }
}

/* Small discs and corners that are no object, but look like parts of one. */
static void draw_crumbs(ptq_rng *rng, picture *p, int most) {
    mask m;
    int count = between(rng, 0, most);

    while (count-- > 0) {
        object crumb = any_object(rng, between(rng, 0, CLASSES - 1), PIXEL, 3 * PIXEL);

        cover_object(&m, &crumb);
        paint_plain(p, &m, any_colour(rng));
    }
}

/* The object's colour keeps some distance from both of the ground's, or nobody could see it. */
static colour visible_colour(ptq_rng *rng, colour a, colour b, int distance) {
    colour made;

    do
        made = any_colour(rng);
    while (colour_distance(made, a) < distance || colour_distance(made, b) < distance);
    return made;
}

static void draw_scene(ptq_rng *rng, picture *p, int label) {
    colour a = any_colour(rng), b = near_colour(rng, a, 64 * 256), over;
    texture ground = any_texture(rng), surface = any_texture(rng);
    object what = any_object(rng, label, 7 * PIXEL, 13 * PIXEL);
    mask m;

    memset(p, 0, sizeof *p);
    memset(m.cover, FULL, sizeof m.cover);
    paint(p, &m, &ground, a, b);
    draw_lines(rng, p, 1, PIXEL, 3 * PIXEL);
    draw_crumbs(rng, p, 2);
    over = visible_colour(rng, a, b, 180 * 256);
    cover_object(&m, &what);
    paint(p, &m, &surface, over, near_colour(rng, over, 48 * 256));
    draw_lines(rng, p, 1, PIXEL, 5 * PIXEL / 2);
}

/* Brighter on one side than on the other. */
static void light(ptq_rng *rng, picture *p) {
    int x, y, i, c, strength = between(rng, 0, 112), level = between(rng, 192, 288);

    any_direction(rng, &x, &y);
    for (i = 0; i < CIFAR_PLANE; i++) {
        int position = along(i % CIFAR_SIDE * PIXEL, i / CIFAR_SIDE * PIXEL, x, y);
        int factor = level + position * strength / (16 * PIXEL);

        for (c = 0; c < 3; c++)
            p->value[c][i] = clamp(p->value[c][i] * factor / 256, 0, WHITE);
    }
}

/* One line of pixels through the kernel 1 2 1, the border repeated. */
static void blur_line(int *value, int step) {
    int before = value[0], i;

    for (i = 0; i < CIFAR_SIDE; i++) {
        int here = value[i * step], after = value[(i + 1 < CIFAR_SIDE ? i + 1 : i) * step];

        value[i * step] = (before + 2 * here + after) / 4;
        before = here;
    }
}

static void blur(picture *p) {
    int c, i;

    for (c = 0; c < 3; c++) {
        for (i = 0; i < CIFAR_SIDE; i++)
            blur_line(p->value[c] + i * CIFAR_SIDE, 1);
        for (i = 0; i < CIFAR_SIDE; i++)
            blur_line(p->value[c] + i, CIFAR_SIDE);
    }
}

/* The sum of four uniform numbers is close to a normal one; its deviation here is `strength`. */
static int noise(ptq_rng *rng, int strength) {
    uint32_t bits = ptq_rng_next(rng);
    int sum = (int)(bits & 255) + (int)(bits >> 8 & 255) + (int)(bits >> 16 & 255) +
              (int)(bits >> 24) - 510;

    return sum * strength / 148;
}

/* To bytes, with noise of all channels together and of each for itself. */
static void develop(ptq_rng *rng, const picture *p, uint8_t *record) {
    int grey = between(rng, 0, 10 * 256), own = between(rng, 0, 10 * 256), i, c;

    for (i = 0; i < CIFAR_PLANE; i++) {
        int common = noise(rng, grey);

        for (c = 0; c < 3; c++) {
            int value = p->value[c][i] + common + noise(rng, own);

            record[1 + c * CIFAR_PLANE + i] = (uint8_t)((clamp(value, 0, WHITE) + 128) / 256);
        }
    }
}

static void draw_record(ptq_rng *rng, int label, uint8_t *record) {
    picture p;
    int blurs;

    draw_scene(rng, &p, label);
    light(rng, &p);
    for (blurs = between(rng, 0, 2); blurs > 0; blurs--)
        blur(&p);
    record[0] = (uint8_t)label;
    develop(rng, &p, record);
}

/* ---- The sets ---- */

/* In every ten pictures each class comes once, in random order: a set cut short stays balanced. */
static void shuffle_labels(ptq_rng *rng, int label[CLASSES]) {
    int i;

    for (i = 0; i < CLASSES; i++)
        label[i] = i;
    for (i = CLASSES - 1; i > 0; i--) {
        int k = between(rng, 0, i), swap = label[i];

        label[i] = label[k];
        label[k] = swap;
    }
}

static ptq_status write_set(cifar_writer *writer, ptq_split split, int count, uint64_t seed,
                            ptq_error *err) {
    uint8_t record[PTQ_CIFAR10_RECORD];
    int label[CLASSES], i;
    ptq_rng rng;

    ptq_rng_seed(&rng, seed, split == PTQ_SPLIT_TRAIN ? 0 : 1);
    for (i = 0; i < count; i++) {
        if (i % CLASSES == 0)
            shuffle_labels(&rng, label);
        draw_record(&rng, label[i % CLASSES], record);
        if (cifar_writer_add(writer, split, record, err))
            return err->status;
    }
    return PTQ_OK;
}

typedef struct request {
    const char *directory;
    unsigned long train, test, seed;
} request;

static int usage(FILE *to, int status) {
    fprintf(
        to,
        "usage: shapes10 DIR [--train N] [--test N] [--seed S]\n\n"
        "Draws a data set of ten objects (arrow, crescent, cross, disc, heart, pentagon, ring,\n"
        "square, star, triangle), 32x32 colour pictures in the binary form of CIFAR-10.\n"
        "The same seed gives the same bytes everywhere.\n\n"
        "  --train N   training pictures, 0 to %d; default 20000\n"
        "  --test N    test pictures, 0 to %d; default 5000\n"
        "  --seed S    default 1\n\n"
        "Example:\n  shapes10 shapes10-data --train 10000 --test 2000\n",
        (int)CIFAR_MOST, (int)CIFAR_BATCH);
    return status;
}

static int read_arguments(int argc, char **argv, request *r) {
    int i, bad;

    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--train"))
            bad = read_whole_number(argv[++i], CIFAR_MOST, &r->train);
        else if (!strcmp(argv[i], "--test"))
            bad = read_whole_number(argv[++i], CIFAR_BATCH, &r->test);
        else if (!strcmp(argv[i], "--seed"))
            bad = read_whole_number(argv[++i], 4294967295u, &r->seed);
        else if (argv[i][0] == '-' || r->directory)
            return complain("shapes10", "unknown argument");
        else
            bad = !*(r->directory = argv[i]);
        if (bad)
            return complain("shapes10", "an argument is missing, or no whole number in its range");
    }
    if (!r->directory)
        return complain("shapes10", "no directory given");
    return r->train || r->test ? 0 : complain("shapes10", "no pictures asked for");
}

int main(int argc, char **argv) {
    request r = {NULL, 20000, 5000, 1};
    cifar_writer writer;
    ptq_error err;
    ptq_status status;

    if (argc == 2 && !strcmp(argv[1], "--help"))
        return usage(stdout, 0);
    if (read_arguments(argc, argv, &r))
        return 1;
    status = cifar_writer_open(&writer, r.directory, class_name, CLASSES, &err);
    if (!status)
        status = write_set(&writer, PTQ_SPLIT_TRAIN, (int)r.train, r.seed, &err);
    if (!status)
        status = write_set(&writer, PTQ_SPLIT_TEST, (int)r.test, r.seed, &err);
    if (cifar_writer_close(&writer, status, &err)) {
        fprintf(stderr, "shapes10: %s\n", err.text);
        return 1;
    }
    return 0;
}
