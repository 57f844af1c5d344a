/* What is said of what cannot come in: of operators that are not supported the nearest way out of
   each kind; of a whole graph everything, each reason once. */
#include <string.h>

#include "import/onnx_import.h"

#ifdef PTQ_HAVE_onnx

typedef struct way {
    const char *operators; /* with a space before and behind each */
    const char *out;
} way;

static const way ways[] = {
    {" LeakyRelu PRelu Sigmoid HardSigmoid HardSwish Tanh Elu Selu Celu Gelu Mish Softplus "
     "Softsign "
     "ThresholdedRelu Erf Exp QLinearSigmoid QLinearLeakyRelu QLinearSoftmax ",
     "of activations there are Relu and Clip (0 to 6); train with one of these"},
    {" Shape Size Gather Slice ConstantOfShape Range Expand Tile Where Equal Less Greater "
     "Not And "
     "Or Floor Ceil Mod Sqrt Reciprocal Pow Neg Abs If Loop Scan NonZero ScatterND ",
     "if it works on shapes or constants, export with a fixed number of images and fold it with "
     "onnxsim; else end the network in front of it"},
    {" Mean Max Min ", "two results can be joined by Add; write more of them as several"},
    {" Hardmax ArgMax TopK ",
     "end the network in front of it, or in a Softmax: the order of the classes is the same"},
    {" GlobalLpPool LpPool ReduceMax ReduceSum ReduceL2 ",
     "of pools there are MaxPool, AveragePool, GlobalMaxPool and GlobalAveragePool"},
    {" QLinearMul ", "products of two results are not there; join them by Add"},
    {" InstanceNormalization GroupNormalization LayerNormalization LRN LpNormalization "
     "MeanVarianceNormalization ",
     "of norms there is BatchNormalization; train with that"},
    {" ConvInteger MatMulInteger DynamicQuantizeLinear ",
     "import the float model, and quantize it with 'ptq quantize --preset dynamic'"},
    {" FusedConv FusedGemm FusedMatMul ",
     "take the file that ONNX Runtime has read, not the optimized one that it wrote"},
};

/* The row of an operator; -1 where there is none. */
static int find_way(const char *op) {
    char padded[64];

    snprintf(padded, sizeof padded, " %.60s ", op);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strstr(ways[i].operators, padded))
            return (int)i;
    return -1;
}

int refuse_operator(const importer *im) {
    int row = find_way(text_or(im->at->op_type, "?"));

    return refuse(im, "this operator is not supported; %s",
                  row < 0 ? "docs/interop.md lists those that are" : ways[row].out);
}

/* ---- All of a graph ---- */

/* Elements of the tensor that input i is; 0 where it is none. */
static size_t tensor_elements(const importer *im, size_t i) {
    const value *from = input_of(im, i);
    const int *shape;

    if (!from || from->state < STATE_REAL)
        return 0;
    shape = shape_of(im, from);
    return (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2];
}

/* An activation, or an operator on two tensors of which the larger one gives the shape. */
void pass_refused(importer *im) {
    static const char same[] = " Clip Mul Div Sub Pow Max Min ";
    const char *op = text_or(im->at->op_type, "?");
    size_t larger = tensor_elements(im, 1) > tensor_elements(im, 0);
    char padded[64];

    snprintf(padded, sizeof padded, " %.60s ", op);
    if (tensor_elements(im, larger) && (find_way(op) == 0 || strstr(same, padded)))
        set_alias(im, input_of(im, larger), input_of(im, larger)->view);
    memset(output_of(im, 0)->pad, 0, sizeof output_of(im, 0)->pad);
}

/* What stands behind the last reason, so that a single one is a single line. */
static void rest_words(const refusals *all, char *words, size_t size) {
    int used = 0;

    words[0] = 0;
    if (all->unlisted)
        used = snprintf(words, size, "; %d more for other reasons", all->unlisted);
    if (all->unchecked)
        snprintf(words + used, size - (size_t)used,
                 "; %d behind it checked for unknown operators only", all->unchecked);
}

void tell_refusals(const importer *im) {
    const refusals *all = im->refused;
    char rest[160], nodes[40];

    rest_words(all, rest, sizeof rest);
    for (int i = 0; i < all->count; i++) {
        const refusal *one = &all->list[i];

        snprintf(nodes, sizeof nodes, " (%d such nodes)", one->nodes);
        fail("%s: node '%.200s' (%.60s): %s%s%s", im->file.path, node_label(one->at),
             text_or(one->at->op_type, "?"), one->reason, one->nodes > 1 ? nodes : "",
             i + 1 < all->count ? "" : rest);
    }
}

#endif
