/* Quantization without a library: a network of one convolution tells horizontal strokes from
   vertical ones, in real numbers and in 8-bit integers. Chapter 0 of docs/ goes through it. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>

enum { SIZE = 6, PLACES = SIZE - 2, CLASSES = 2 };

static const float weight[CLASSES][3][3] = {
    {{-.5f, -.6f, -.4f}, {1.1f, .9f, 1}, {-.5f, -.4f, -.6f}},
    {{-.4f, 1, -.5f}, {-.6f, .9f, -.5f}, {-.4f, 1.1f, -.5f}}};
static const float bias[CLASSES] = {.1f, .05f};

/* The first two are for calibration. A '#' is a bright pixel, 240; a '.' is a dark one, 16. */
static const char *const picture[3][SIZE] = {
    {"......", "......", "######", "......", "......", "......"},
    {"...#..", "...#..", "...#..", "...#..", "...#..", "...#.."},
    {"......", "......", ".####.", "......", ".....#", "......"}};

static int8_t weight_code[CLASSES][3][3];
static int32_t bias_code[CLASSES];
static float weight_scale, result_scale;

static int pixel(int n, int y, int x) { return picture[n][y][x] == '#' ? 240 : 16; }

/* One element of the convolution's result, after ReLU, in real numbers. */
static float real_result(int n, int c, int y, int x) {
    float sum = bias[c];
    for (int k = 0; k < 9; k++)
        sum += (float)pixel(n, y + k / 3, x + k % 3) / 255 * weight[c][k / 3][k % 3];
    return sum > 0 ? sum : 0;
}

/* The same as a code. A pixel is its own code: its scale is 1 / 255. */
static int integer_result(int n, int c, int y, int x) {
    float multiplier = weight_scale / 255 / result_scale, code;
    int32_t sum = bias_code[c];
    for (int k = 0; k < 9; k++)
        sum += pixel(n, y + k / 3, x + k % 3) * weight_code[c][k / 3][k % 3];
    code = nearbyintf((float)sum * multiplier);
    return code < 0 ? 0 : code > 255 ? 255 : (int)code; /* the lower end is the ReLU */
}

static void calibrate_and_convert(void) {
    const float *w = &weight[0][0][0];
    for (int k = 0; k < 2 * CLASSES * PLACES * PLACES; k++)
        result_scale = fmaxf(result_scale,
                             real_result(k % 2, k / 2 % 2, k / 4 / PLACES, k / 4 % PLACES) / 255);
    for (int k = 0; k < CLASSES * 9; k++)
        weight_scale = fmaxf(weight_scale, fabsf(w[k]) / 127);
    for (int k = 0; k < CLASSES * 9; k++)
        (&weight_code[0][0][0])[k] = (int8_t)nearbyintf(w[k] / weight_scale);
    for (int c = 0; c < CLASSES; c++)
        bias_code[c] = (int32_t)nearbyintf(bias[c] / (weight_scale / 255));
}

int main(void) {
    calibrate_and_convert();
    printf("scales: weights %.6f, results %.6f\n", (double)weight_scale, (double)result_scale);
    for (int n = 0; n < 3; n++)
        for (int c = 0; c < CLASSES; c++) {
            float real = 0;
            int sum = 0;
            for (int k = 0; k < PLACES * PLACES; k++) {
                real += real_result(n, c, k / PLACES, k % PLACES);
                sum += integer_result(n, c, k / PLACES, k % PLACES);
            }
            printf("picture %d, %-10s  float %7.4f   integers %5d, which is %7.4f\n", n,
                   c ? "vertical" : "horizontal", (double)real, sum,
                   (double)((float)sum * result_scale));
        }
    return 0;
}
