/* From real numbers to codes and back: QuantizeLinear, DequantizeLinear, and what operators of the
   QOperator form say of the codes that they read and make. */
#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

/* Since opset 21 QuantizeLinear may name the type that its zero point would tell. */
static int read_code_type(const importer *im, ptq_type *type) {
    int64_t named = int_attribute(im, "output_dtype", 0);

    if (named && named != ONNX_UINT8 && named != ONNX_INT8)
        return refuse(im, "its output_dtype is neither UINT8 nor INT8; quantize to 8 bits, or "
                          "quantize the float model with 'ptq quantize'");
    if (named)
        *type = named == ONNX_INT8 ? PTQ_TYPE_S8 : PTQ_TYPE_U8;
    return 0;
}

int read_qparams(importer *im, size_t first, ptq_type type, ptq_qparams *out) {
    const onnx_constant *scale, *zero;

    if (read_code_type(im, &type) || constant_input(im, first, 1, &scale) ||
        constant_input(im, first + 1, 0, &zero))
        return 1;
    if (scale->count != 1 || scale->type != ONNX_FLOAT || (zero && zero->count != 1))
        return refuse(
            im, "activations must have one scale and one zero point; quantize them per tensor");
    if (zero && zero->type != ONNX_UINT8 && zero->type != ONNX_INT8)
        return refuse(im, "its zero point is neither UINT8 nor INT8; quantize to 8 bits, or "
                          "quantize the float model with 'ptq quantize'");
    out->type = constant_codes(zero, type);
    out->bits = 8;
    out->scale = ((const float *)scale->data)[0];
    out->zero_point = constant_zero(zero, 0);
    return 0;
}

static int same_codes(const ptq_qparams *a, const ptq_qparams *b) {
    return a->type == b->type && a->zero_point == b->zero_point && !(a->scale < b->scale) &&
           !(a->scale > b->scale);
}

/* A UINT8 input learns from its first reader what its codes stand for. The model's input is pixels;
   preprocessing is chosen so that their codes are the pixels themselves. */
static void adopt_input(importer *im, const ptq_qparams *q) {
    ptq_model *model = im->model;

    model->node[0].q = *q;
    for (int c = 0; c < PTQ_MAX_PIXEL_CHANNELS; c++) {
        model->mean[c] = (float)q->zero_point;
        model->std[c] = 1 / q->scale;
    }
    im->byte_input = 0;
}

/* Whether a tensor has the codes that inputs `first` and the next say; `type` without a zero point.
 */
static int check_codes(importer *im, const value *from, size_t first, ptq_type type) {
    ptq_qparams q;

    if (from->state != STATE_CODES)
        return refuse(im,
                      "it needs codes but gets real numbers; put a QuantizeLinear in front of it");
    if (read_qparams(im, first, type, &q))
        return 1;
    if (from->node == 0 && im->byte_input && q.type == PTQ_TYPE_U8 && q.scale > 0)
        adopt_input(im, &q);
    if (!same_codes(&q, &im->model->node[from->node].q))
        return refuse(im, "it reads codes with another scale, zero point or type than they were "
                          "made with; put a DequantizeLinear and a QuantizeLinear between");
    return 0;
}

value *coded_input(importer *im, size_t first) {
    value *from = tensor_input(im, first);

    return from && check_codes(im, from, first + 1, PTQ_TYPE_U8) == 0 ? from : NULL;
}

int finish_node(importer *im, int index, view shown, state how) {
    ptq_qparams q;

    if (!im->operation->result)
        return set_result(im, index, shown, how);
    if (read_qparams(im, (size_t)im->operation->result, PTQ_TYPE_U8, &q))
        return 1;
    if (index >= 0)
        im->model->node[index].q = q;
    return set_result(im, index, shown, STATE_CODES);
}

/* ---- QuantizeLinear and DequantizeLinear ---- */

/* Real numbers to codes, each with its own scale: for weights that a file holds as real numbers. */
static int fold_quantize(importer *im, const onnx_constant *from) {
    constant_numbers of = {from, NULL, NULL, (int)int_attribute(im, "axis", 1)};
    ptq_qparams q = {PTQ_TYPE_U8, 8, 1, 0};
    onnx_constant *to;

    if (read_code_type(im, &q.type) || constant_input(im, 1, 1, &of.scale) ||
        constant_input(im, 2, 0, &of.zero_point) || check_scales(im, &of))
        return 1;
    if (from->type != ONNX_FLOAT)
        return refuse_damaged(im, "only real numbers can be quantized");
    q.type = constant_codes(of.zero_point, q.type);
    if (fold_constant(im, onnx_code_type(q.type), from->rank, from->dim, &to))
        return 1;
    for (size_t i = 0; i < from->count; i++) {
        size_t k = scale_index(&of, i);

        q.scale = ((const float *)of.scale->data)[k];
        q.zero_point = constant_zero(of.zero_point, k);
        if (!(q.scale > 0) || constant_float(from, i) != constant_float(from, i))
            return refuse_damaged(im, "a scale is not positive, or a number is none");
        ((uint8_t *)to->data)[i] = (uint8_t)ptq_quantize(constant_float(from, i), &q);
    }
    return 0;
}

/* Codes of a pending result: they become an attribute of its node. */
static int quantize_pending(importer *im, const value *from, const ptq_qparams *q) {
    ptq_node *node = &im->model->node[from->node];

    if (node->q.type != PTQ_TYPE_F32 && !same_codes(&node->q, q))
        return refuse(im,
                      "a tensor is quantized in two ways; give all its readers one QuantizeLinear");
    set_chain_codes(im, from->node, q);
    set_alias(im, from, from->view);
    output_of(im, 0)->state = STATE_CODES;
    return 0;
}

static int quantize_real(importer *im, value *from, const ptq_qparams *q) {
    int real, index;

    if (from->state == STATE_REAL && from->node == 0 && im->model->nodes == 1)
        return quantize_pending(im, from, q);
    if ((real = real_node(im, from)) < 0)
        return 1;
    index = append_op(im, PTQ_OP_QUANTIZE, real);
    if (index >= 0)
        im->model->node[index].q = *q;
    return set_result(im, index, from->view, STATE_CODES);
}

int import_quantize(importer *im) {
    value *from = input_of(im, 0);
    const onnx_constant *constant;
    ptq_qparams q;

    if (from && from->state == STATE_CONSTANT)
        return constant_input(im, 0, 1, &constant) || fold_quantize(im, constant);
    if (!(from = padded_input(im, 0)) || read_qparams(im, 1, PTQ_TYPE_U8, &q))
        return 1;
    if (from->state == STATE_PENDING)
        return quantize_pending(im, from, &q);
    if (from->state == STATE_DEQUANTIZED && same_codes(&q, &im->model->node[from->node].q)) {
        set_alias(im, from, from->view);
        output_of(im, 0)->state = STATE_CODES;
        return 0;
    }
    return is_padded(from) ? tensor_input(im, 0) == NULL : quantize_real(im, from, &q);
}

/* A constant keeps its codes: a layer may want them. */
static int dequantize_constant(importer *im) {
    constant_numbers of = {NULL, NULL, NULL, (int)int_attribute(im, "axis", 1)};

    if (constant_input(im, 0, 1, &of.numbers) || constant_input(im, 1, 1, &of.scale) ||
        constant_input(im, 2, 0, &of.zero_point))
        return 1;
    if ((onnx_width(of.numbers->type) != 1 && of.numbers->type != ONNX_INT32) ||
        int_attribute(im, "block_size", 0) != 0)
        return refuse(im, "it needs codes of INT8, UINT8 or INT32, and scales for whole channels "
                          "or tensors; quantize to 8 bits without blocks");
    if (check_scales(im, &of))
        return 1;
    output_of(im, 0)->state = STATE_CONSTANT;
    output_of(im, 0)->codes = of;
    return 0;
}

int import_dequantize(importer *im) {
    value *from = input_of(im, 0);

    if (from && from->state == STATE_CONSTANT)
        return dequantize_constant(im);
    if (!(from = padded_input(im, 0)) ||
        check_codes(im, from, 1, im->model->node[from->node].q.type))
        return 1;
    set_alias(im, from, from->view);
    output_of(im, 0)->state = STATE_DEQUANTIZED;
    output_of(im, 0)->dequantize = im->at->name && *im->at->name ? im->at->name : NULL;
    return 0;
}

#endif
