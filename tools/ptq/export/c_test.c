/* The test vector of a standalone header: an image, the logits that the library gives for it, and
   the function by which a firmware sees whether it computes the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "export/c_header.h"
#include "ptq.h"
#include "shared/output.h"

enum { TEST_SEED = 7 };

static const char *const test_function[] = {
    "int net_test(void)\n",
    "{\n",
    "    float logits[NET_CLASSES];\n",
    "    net_run(net_test_input, logits);\n",
    "    return memcmp(logits, net_test_logits, sizeof logits) != 0;\n",
    "}\n",
    NULL};

static const char *const test_api[] = {"\n",
                                       "#ifdef NET_TEST\n",
                                       "/* 0 if net_run gives the logits that \"ptq run\" gives "
                                       "for an image of random bytes, bit for\n",
                                       "   bit, else 1. */\n",
                                       "int net_test(void);\n",
                                       "#endif\n",
                                       NULL};

void put_test_api(const header *h) {
    if (h->test)
        put_lines(h, test_api);
}

/* Bytes, every value alike. */
static void draw(uint8_t *bytes, size_t n) {
    ptq_rng rng;

    ptq_rng_seed(&rng, TEST_SEED, 0);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)ptq_rng_below(&rng, 256);
}

/* Codes within their range, and the real numbers that they stand for. */
static void draw_codes(const header *h, uint8_t *codes, float *reals, size_t n) {
    const ptq_qparams *q = &h->model->node[h->start].q;
    size_t channels = (size_t)h->model->node[0].shape[2];
    int32_t low, high;

    ptq_code_range(q->type, q->bits, &low, &high);
    for (size_t i = 0; i < n; i++) {
        int32_t code = low + codes[i] % (high - low + 1);
        size_t c = i % channels;
        int scaled = c < PTQ_MAX_PIXEL_CHANNELS;

        codes[i] = (uint8_t)code;
        reals[i] = q->scale * (float)(code - q->zero_point);
        reals[i] = reals[i] * (scaled ? h->model->std[c] : 1) + (scaled ? h->model->mean[c] : 0);
    }
}

static int run_once(const header *h, uint8_t *bytes, float *reals, float *logits) {
    ptq_session *session = NULL;
    ptq_error err;
    ptq_status status = ptq_session_create(h->plan, NULL, &session, &err);

    if (!status && h->start) {
        draw_codes(h, bytes, reals, elements(h->model->node[0].shape));
        status = ptq_run_f32(session, reals, 1, logits, NULL, &err);
    } else if (!status) {
        status = ptq_run(session, bytes, 1, logits, NULL, &err);
    }
    ptq_session_free(session);
    return status ? fail("%s", err.text) : 0;
}

static void put_vector(header *h, const uint8_t *bytes, size_t n, const float *logits,
                       size_t classes) {
    fprintf(h->to, "\n#ifdef %s_TEST\nstatic const uint8_t %s_test_input[%s_PIXELS] = {\n",
            h->upper, h->name, h->upper);
    h->column = 0;
    for (size_t i = 0; i < n; i++)
        put_number(h, bytes[i]);
    fprintf(h->to,
            "\n};\n/* as bits of single precision */\n"
            "static const uint32_t %s_test_logits[%s_CLASSES] = {\n",
            h->name, h->upper);
    h->column = 0;
    for (size_t i = 0; i < classes; i++)
        put_real(h, logits[i]);
    fputs("\n};\n\n", h->to);
    put_lines(h, test_function);
    fputs("#endif\n", h->to);
}

/* 0, or 1 after an error. */
int put_test(header *h) {
    size_t n = elements(h->model->node[0].shape);
    size_t classes = (size_t)ptq_plan_get_info(h->plan)->classes;
    uint8_t *bytes = malloc(n);
    float *reals = malloc(n * sizeof *reals), *logits = malloc(classes * sizeof *logits);
    int status = bytes && reals && logits ? 0 : fail("no memory for the test vector");

    if (!status) {
        draw(bytes, n);
        status = run_once(h, bytes, reals, logits);
    }
    if (!status)
        put_vector(h, bytes, n, logits, classes);
    free(bytes);
    free(reals);
    free(logits);
    return status;
}
