/* The test vector of a standalone header: an image, the logits that the library gives for it, and
   the function by which a firmware sees whether it computes the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "export/c_header.h"
#include "ptq.h"
#include "shared/output.h"

enum { TEST_SEED = 7 };

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

/* In a session that keeps results: those of `fixed` are codes, perhaps of a softmax. */
static int run_once(const header *h, uint8_t *bytes, float *reals, float *logits, uint8_t *codes) {
    ptq_session_options keep = {0};
    ptq_session *session = NULL;
    ptq_tensor result;
    ptq_error err;
    ptq_status status;

    keep.keep = 1;
    status = ptq_session_create(h->plan, &keep, &session, &err);

    if (!status && h->start) {
        draw_codes(h, bytes, reals, elements(h->model->node[0].shape));
        status = ptq_run_f32(session, reals, 1, logits, NULL, &err);
    } else if (!status) {
        status = ptq_run(session, bytes, 1, logits, NULL, &err);
    }
    if (!status)
        status = ptq_session_tensor(session, h->model->node[h->logits].out, &result, &err);
    if (!status && h->arithmetic == FIXED)
        memcpy(codes, result.data, result.size);
    ptq_session_free(session);
    return status ? fail("%s", err.text) : 0;
}

/* What is to come out: codes, or the bits of logits. */
static void put_results(header *h, const float *logits, const uint8_t *codes, size_t classes) {
    int fixed = h->arithmetic == FIXED;

    if (!fixed)
        fputs("/* as bits of single precision */\n", h->to);
    fprintf(h->to, "static const %s %s_test_%s[%s_CLASSES] = {\n",
            fixed ? result_type(h) : "uint32_t", h->name, result_name(h), h->upper);
    h->column = 0;
    for (size_t i = 0; i < classes; i++)
        if (fixed)
            put_number(h, *result_type(h) == 'i' ? (int8_t)codes[i] : codes[i]);
        else
            put_real(h, logits[i]);
    fputs("\n};\n\n", h->to);
}

static void put_function(const header *h) {
    const char *name = result_name(h);

    fprintf(h->to,
            "int %s_test(void)\n{\n    %s %s[%s_CLASSES];\n"
            "    %s_run(%s_test_input, %s);\n"
            "    return memcmp(%s, %s_test_%s, sizeof %s) != 0;\n}\n",
            h->name, result_type(h), name, h->upper, h->name, h->name, name, name, h->name, name,
            name);
}

static void put_vector(header *h, const uint8_t *bytes, size_t n, const float *logits,
                       const uint8_t *codes, size_t classes) {
    fprintf(h->to, "\n#ifdef %s_TEST\nstatic const uint8_t %s_test_input[%s_PIXELS] = {\n",
            h->upper, h->name, h->upper);
    h->column = 0;
    for (size_t i = 0; i < n; i++)
        put_number(h, bytes[i]);
    fputs("\n};\n", h->to);
    put_results(h, logits, codes, classes);
    put_function(h);
    fputs("#endif\n", h->to);
}

/* 0, or 1 after an error. */
int put_test(header *h) {
    size_t n = elements(h->model->node[0].shape);
    size_t classes = (size_t)ptq_plan_get_info(h->plan)->classes;
    uint8_t *bytes = malloc(n), *codes = malloc(classes);
    float *reals = malloc(n * sizeof *reals), *logits = malloc(classes * sizeof *logits);
    int status = bytes && codes && reals && logits ? 0 : fail("no memory for the test vector");

    if (!status) {
        draw(bytes, n);
        status = run_once(h, bytes, reals, logits, codes);
    }
    if (!status)
        put_vector(h, bytes, n, logits, codes, classes);
    free(bytes);
    free(codes);
    free(reals);
    free(logits);
    return status;
}
