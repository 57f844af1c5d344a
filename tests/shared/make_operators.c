/* make_operators DIR: writes DIR/ops_float, DIR/ops_xnnpack and DIR/ops_fixed, one network that has
   every operator without weights that TensorFlow Lite has too, on real numbers and on codes. */
#include <stdio.h>
#include <string.h>

#include "ptq.h"

static int coded;

/* How the result of a node is coded. */
static int code(ptq_model *model, int node, double scale, int zero) {
    ptq_qparams q = {PTQ_TYPE_S8, 8, 0, 0};

    q.scale = (float)scale;
    q.zero_point = zero;
    if (node >= 0 && coded)
        model->node[node].q = q;
    return node;
}

/* From bytes p, which are p / 64: codes p - 128. */
static int begin(ptq_model *model) {
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++)
        model->std[c] = 64;
    return code(model, ptq_add_input(model, "input", 32, 32, 3), 1.0 / 64, -128);
}

static int functions(ptq_model *m, int x) {
    int a = code(m, ptq_add_function(m, PTQ_FUNCTION_LEAKY_RELU, "leaky", x, 0.3f, 0), 0.021, -10);
    int b = code(m, ptq_add_function(m, PTQ_FUNCTION_TANH, "tanh", a, 0, 0), 1.0 / 128, 0);
    int c = code(m, ptq_add_function(m, PTQ_FUNCTION_SIGMOID, "sigmoid", a, 0, 0), 1.0 / 256, -128);
    int d = code(m, ptq_add_mul(m, "product", b, c), 0.0081, 3);
    int e = code(m, ptq_add_concat(m, "joined", d, a), 0.033, -5);

    return code(m, ptq_add_add(m, "sum", e, e), 0.055, -7);
}

static int pools(ptq_model *m, int x) {
    ptq_pool_options three = {0}, two = {0};
    int f = code(m, ptq_add_op(m, PTQ_OP_GLOBAL_AVG_POOL, "mean", x), 0.03, -9), y;

    three.kernel_h = three.kernel_w = 3;
    three.stride_h = three.stride_w = two.kernel_h = two.kernel_w = 2;
    y = code(m, ptq_add_mul(m, "scaled", x, f), 0.17, -100);
    y = code(m, ptq_add_pool(m, PTQ_OP_AVG_POOL, "average", y, &three), 0.17, -100);
    y = code(m, ptq_add_pool(m, PTQ_OP_MAX_POOL, "most", y, &two), 0.17, -100);
    y = code(m, ptq_add_op(m, PTQ_OP_GLOBAL_MAX_POOL, "whole", y), 0.17, -100);
    return code(m, ptq_add_op(m, PTQ_OP_SOFTMAX, "softmax", y), 1.0 / 256, -128);
}

static int write(const char *dir, const char *arithmetic) {
    char path[1000];
    ptq_model *model = NULL;
    ptq_error err;

    coded = strcmp(arithmetic, "float") != 0;
    snprintf(path, sizeof path, "%s/ops_%s", dir, arithmetic);
    if (ptq_model_create(NULL, &model, &err) || pools(model, functions(model, begin(model))) < 0)
        return fprintf(stderr, "%s: %s\n", path, model ? model->error.text : err.text), 1;
    model->node[ptq_model_find(model, "mean")].output = 2; /* the first are the classes */
    model->node[model->nodes - 1].output = 1;
    if ((coded && ptq_model_set_meta(model, "arithmetic", arithmetic, &err)) ||
        ptq_model_save(model, path, &err))
        return fprintf(stderr, "%s: %s %s\n", path, err.text, model ? model->error.text : ""), 1;
    ptq_model_free(model);
    return 0;
}

int main(int argc, char **argv) {
    return argc != 2 || write(argv[1], "float") || write(argv[1], "xnnpack") ||
           write(argv[1], "fixed");
}
