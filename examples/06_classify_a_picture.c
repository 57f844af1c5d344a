/* Classifies your own picture, with the float model and with the integer model side by side.

       build/06_classify_a_picture                                 a drawn heart, Shapes-10's models
       build/06_classify_a_picture PICTURE                         a photograph, CIFAR-10's models
       build/06_classify_a_picture PICTURE MODEL.safetensors DATA  a model of your own

   PICTURE is a JPEG, PNG, BMP, GIF or PNM file of any size; the square in its middle counts. The
   integer model is MODEL-int8.safetensors; make puts the first two into build/models. The names of
   the classes are in the folder DATA. Needs stb_image (Debian: libstb-dev). */
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_MAX_DIMENSIONS 16384
#include <stb/stb_image.h>

#define PTQ_IMPLEMENTATION
#include "../ptq.h"

enum { CLASSES = 10, TOP = 5, SIZE = 32, RUNS = 300, DRAWN = 240 };

#define PHOTOGRAPHS "examples/models/resnet8-cifar10.safetensors"
#define DRAWINGS "examples/models/resnet8-shapes10.safetensors"

static const char *const shapes[CLASSES] = {"arrow",    "crescent", "cross",  "disc", "heart",
                                            "pentagon", "ring",     "square", "star", "triangle"};

/* Red on a shaded ground, as R G B A. The curve is (x^2 + y^2 - 1)^3 = x^2 y^3. */
static void draw_heart(uint8_t *rgba) {
    int i;

    for (i = 0; i < DRAWN * DRAWN; i++, rgba += 4) {
        double x = (i % DRAWN - DRAWN / 2) / 72.0, y = (DRAWN / 2 - i / DRAWN) / 72.0;
        double a = x * x + y * y - 1;
        int inside = a * a * a <= x * x * y * y * y;

        rgba[0] = (uint8_t)(inside ? 200 : 60 + i / DRAWN / 3);
        rgba[1] = (uint8_t)(inside ? 40 : 110 + i / DRAWN / 3);
        rgba[2] = (uint8_t)(inside ? 60 : 90);
        rgba[3] = 255;
    }
}

/* The square in the middle, each of the model's pixels the mean of what it covers; a picture that
   is smaller than the model's input is repeated pixel by pixel. Transparent parts are white. */
static void fit(const uint8_t *rgba, int width, int height, uint8_t *out) {
    int side = width < height ? width : height, at, x, y, c;

    for (at = 0; at < SIZE * SIZE; at++) {
        int left = (width - side) / 2 + at % SIZE * side / SIZE;
        int top = (height - side) / 2 + at / SIZE * side / SIZE;
        int w = side > SIZE ? (at % SIZE + 1) * side / SIZE - at % SIZE * side / SIZE : 1;
        int h = side > SIZE ? (at / SIZE + 1) * side / SIZE - at / SIZE * side / SIZE : 1;

        for (c = 0; c < 3; c++) {
            double sum = 0;

            for (y = top; y < top + h; y++)
                for (x = left; x < left + w; x++) {
                    const uint8_t *p = rgba + 4 * ((size_t)y * (size_t)width + (size_t)x);

                    sum += p[c] * p[3] + 255 * (255 - p[3]);
                }
            out[3 * at + c] = (uint8_t)(sum / (255.0 * w * h) + 0.5);
        }
    }
}

/* Probabilities of the classes, and microseconds for one run. */
static ptq_status classify(const char *path, const uint8_t *pixels, float *p, double *microseconds,
                           ptq_error *err) {
    ptq_model *model = NULL, *fused = NULL;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    clock_t start;
    int i;

    if (!ptq_model_load(path, NULL, &model, err) && !ptq_fuse(model, &fused, NULL, err) &&
        !ptq_plan_create(fused, NULL, &plan, err) &&
        !ptq_session_create(plan, NULL, &session, err)) {
        if (ptq_plan_get_info(plan)->pixels != SIZE * SIZE * 3 ||
            ptq_plan_get_info(plan)->classes != CLASSES)
            ptq_error_set(err, PTQ_UNSUPPORTED, "%s: not a model from 32x32x3 pixels to 10 classes",
                          path);
        start = clock();
        for (i = 0; i < RUNS && !err->status; i++)
            ptq_run(session, pixels, 1, NULL, p, err);
        *microseconds = 1e6 * (double)(clock() - start) / CLOCKS_PER_SEC / RUNS;
    }
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_model_free(fused);
    ptq_model_free(model);
    return err->status;
}

/* The five most probable classes of the float model, beside the integer model's opinion. */
static void print_top(const float *a, const float *b, const char *const *name) {
    float left[CLASSES];
    int i, best;

    memcpy(left, a, sizeof left);
    for (i = 0; i < TOP; i++) {
        best = ptq_argmax(left, CLASSES);
        printf("%d. %-12s %8.2f %% %8.2f %%\n", i + 1, name[best], 100 * (double)a[best],
               100 * (double)b[best]);
        left[best] = -1;
    }
}

int main(int argc, char **argv) {
    static uint8_t drawn[DRAWN * DRAWN * 4], pixels[SIZE * SIZE * 3];
    const char *model = argc > 2 ? argv[2] : argc > 1 ? PHOTOGRAPHS : DRAWINGS;
    const char *file = argc > 2 ? model : strrchr(model, '/') + 1;
    const char *const *name = argc > 1 ? ptq_cifar10_dataset(NULL)->class_name : shapes;
    char integers[512];
    int width = DRAWN, height = DRAWN, channels;
    uint8_t *rgba = argc > 1 ? stbi_load(argv[1], &width, &height, &channels, 4) : drawn;
    float p[2][CLASSES] = {{0}};
    double time[2] = {0, 0};
    ptq_cifar10 *data = NULL;
    ptq_error err = {PTQ_OK, ""};

    if (!rgba)
        return fprintf(stderr, "%s: %s\n", argv[1], stbi_failure_reason()), 1;
    draw_heart(drawn);
    fit(rgba, width, height, pixels);
    stbi_image_free(argc > 1 ? rgba : NULL);
    snprintf(integers, sizeof integers, "%s%.*s-int8.safetensors", argc > 2 ? "" : "build/models/",
             (int)strlen(file) - (int)strlen(".safetensors"), file);
    if (argc > 3 && !ptq_cifar10_open(argv[3], PTQ_SPLIT_TEST, NULL, &data, &err))
        name = ptq_cifar10_dataset(data)->class_name;
    if (err.status || classify(model, pixels, p[0], &time[0], &err))
        return fprintf(stderr, "%s\n", err.text), 1;
    if (classify(integers, pixels, p[1], &time[1], &err))
        return fprintf(stderr, "%s\nTo make it: build/ptq quantize --model %s --data DATA -o %s\n",
                       err.text, model, integers) > 0;
    printf("%s, %d x %d pixels\n\n   %-14s %8s %10s\n", argc > 1 ? argv[1] : "a drawn heart", width,
           height, "", "float", "integers");
    print_top(p[0], p[1], name);
    printf("One run takes %.0f and %.0f microseconds.\n", time[0], time[1]);
    ptq_cifar10_free(data);
    return 0;
}
