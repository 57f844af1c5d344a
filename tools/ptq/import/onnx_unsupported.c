/* What is said of operators that are not supported: the nearest way out of each kind. */
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
    {" Shape Size Gather Slice Split ConstantOfShape Range Expand Tile Where Equal Less Greater "
     "Not And "
     "Or Floor Ceil Mod Sqrt Reciprocal Pow Neg Abs If Loop Scan NonZero ScatterND ",
     "if it works on shapes or constants, export with a fixed number of images and fold it with "
     "onnxsim; else end the network in front of it"},
    {" Concat QLinearConcat ", "results can only be joined by Add, of equal shapes"},
    {" Sum Mean Max Min ", "two results can be joined by Add; write more of them as several"},
    {" LogSoftmax Hardmax ArgMax TopK ",
     "end the network in front of it, or in a Softmax: the order of the classes is the same"},
    {" GlobalMaxPool GlobalLpPool LpPool ReduceMax ReduceSum ReduceL2 ",
     "of pools there are MaxPool, AveragePool and GlobalAveragePool"},
    {" QLinearMul ", "products of two results are not there; join them by Add"},
    {" InstanceNormalization GroupNormalization LayerNormalization LRN LpNormalization "
     "MeanVarianceNormalization ",
     "of norms there is BatchNormalization; train with that"},
    {" ConvInteger MatMulInteger DynamicQuantizeLinear ",
     "import the float model, and quantize it with 'ptq quantize --preset dynamic'"},
    {" FusedConv FusedGemm FusedMatMul ",
     "take the file that ONNX Runtime has read, not the optimized one that it wrote"},
};

int refuse_operator(const importer *im) {
    const char *op = text_or(im->at->op_type, "?"), *out = "docs/interop.md lists those that are";
    char padded[64];

    snprintf(padded, sizeof padded, " %.60s ", op);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strstr(ways[i].operators, padded))
            out = ways[i].out;
    return refuse(im, "this operator is not supported; %s", out);
}

#endif
