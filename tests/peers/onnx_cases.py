"""Writes small ONNX models that use every operator ptq imports, as other programs would write them.

    python3 onnx_cases.py DIRECTORY      one .onnx file for each case; all take 32 x 32 x 3 images
    python3 onnx_cases.py --check FILES  runs the official checker on files

The names say what to expect: real_* computes in float, code_* on codes; *_exact must give the same
logits in ONNX Runtime, bit for bit. refused_* must be refused, with what NAME.words holds.
"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(1)


class Graph:
    """Nodes and constants, collected under numbered names."""

    def __init__(self, opset, shape=("N", 3, 32, 32), kind=TensorProto.FLOAT):
        self.opset, self.nodes, self.constants, self.count = opset, [], [], 0
        self.input = helper.make_tensor_value_info("in", kind, shape)
        self.last = "in"

    def const(self, array, name=None):
        self.count += 1
        name = name or f"k{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, *inputs, source=None, domain="", **attributes):
        self.count += 1
        name = f"/{kind.lower()}/{self.count}"
        inputs = [self.last if source is None else source, *inputs]
        self.nodes.append(helper.make_node(kind, inputs, [name], name, domain=domain, **attributes))
        self.last = name
        return name

    def weight(self, *shape):
        fan_in = np.prod(shape[1:])
        return random.uniform(-1, 1, shape).astype("f4") * np.float32((3 / fan_in) ** 0.5)

    def conv(self, outputs, inputs, kernel=3, bias=True, source=None, **attributes):
        weight = self.const(self.weight(outputs, inputs, kernel, kernel))
        biases = [self.const(random.uniform(-1, 1, outputs).astype("f4"))] if bias else []
        return self.op("Conv", weight, *biases, source=source, **attributes)

    def scaled(self):
        """Brings pixels to about -1..1."""
        self.op("Sub", self.const(np.float32(120)))
        return self.op("Div", self.const(np.array([60, 61, 62], "f4").reshape(1, 3, 1, 1)))

    def save(self, path, **options):
        output = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, ["N", 10])
        graph = helper.make_graph(self.nodes, "case", [self.input], [output], self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 7 if self.opset < 18 else 9
        onnx.save_model(model, path, **options)

    # ---- Quantized ----

    def qparams(self, scale, zero, kind="u1"):
        return self.const(np.asarray(scale, "f4")), self.const(np.asarray(zero, kind))

    def quantize(self, scale, zero, kind="u1"):
        return self.op("QuantizeLinear", *self.qparams(scale, zero, kind))

    def around(self, scale, zero, kind="u1"):
        """Quantizes and dequantizes the last tensor."""
        q = self.qparams(scale, zero, kind)
        self.op("QuantizeLinear", *q)
        return self.op("DequantizeLinear", *q)

    def codes(self, shape, kind="i1"):
        low, high = (-127, 128) if kind == "i1" else (1, 255)
        return self.const(random.integers(low, high, shape).astype(kind))


def opset7(g):
    g.scaled()
    g.conv(8, 3, auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3])
    g.op("BatchNormalization", *[g.const(random.uniform(0.5, 1.5, 8).astype("f4")) for _ in range(4)])
    g.op("Relu")
    g.op("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    g.op("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    g.op("Flatten")
    g.op("Gemm", g.const(g.weight(128, 10)), g.const(random.uniform(-1, 1, 10).astype("f4")))


def opset9(g):
    g.scaled()
    g.conv(6, 3, auto_pad="SAME_LOWER", strides=[2, 2], bias=False)
    g.op("Clip", min=0.0, max=6.0)
    g.op("Dropout", ratio=0.3)
    g.op("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[2, 2], count_include_pad=1)
    g.op("GlobalAveragePool")
    g.op("Reshape", g.const(np.array([0, -1], "i8")))
    g.op("Gemm", g.const(g.weight(10, 6)), g.const(np.zeros(10, "f4")), transB=1)


def nhwc(g):
    """What Keras models look like after tf2onnx."""
    g.op("Mul", g.const(np.float32(1 / 60)))
    g.op("Add", g.const(np.array([-2, -1.9, -2.1], "f4")))
    g.op("Transpose", perm=[0, 3, 1, 2])
    g.conv(6, 1, group=3, pads=[0, 0, 1, 1], strides=[2, 2])
    x = g.op("Clip", g.const(np.float32(0)), g.const(np.float32(6)))
    y = g.conv(6, 6, pads=[1, 1, 1, 1], bias=False)
    y = g.op("Add", g.const(random.uniform(-1, 1, (1, 6, 1, 1)).astype("f4")))
    g.op("Add", x, source=y)
    g.op("Relu")
    g.op("MaxPool", kernel_shape=[4, 4], strides=[4, 4])
    g.op("Transpose", perm=[0, 2, 3, 1])
    g.op("Reshape", g.const(np.array([-1, 96], "i8")))
    g.op("MatMul", g.const(g.weight(96, 10)))
    g.op("Add", g.const(random.uniform(-1, 1, 10).astype("f4")))


def reduced(g, opset18):
    g.scaled()
    g.op("Pad", g.const(np.array([0, 0, 1, 0, 0, 0, 2, 1], "i8")))
    kernel = helper.make_tensor("inline", TensorProto.FLOAT, [5, 3, 3, 3], g.weight(5, 3, 3, 3).ravel())
    g.nodes.append(helper.make_node("Constant", [], ["w"], "w", value=kernel))
    g.op("Conv", "w")
    g.op("Identity")
    if opset18:
        g.op("ReduceMean", g.const(np.array([-1, -2], "i8")), keepdims=0)
    else:
        g.op("ReduceMean", axes=[2, 3], keepdims=1)
        g.op("Squeeze", g.const(np.array([2, 3], "i8")))
    half = g.const(g.weight(10, 5).astype("f2"))
    g.op("Cast", source=half, to=TensorProto.FLOAT)
    turned = g.op("Transpose", perm=[1, 0])
    g.op("MatMul", turned, source=g.nodes[-3].output[0])


def quantized_layers(g, weights, per_channel, bias):
    """QDQ form. bias: 'codes', 'real' or None."""
    kind = "i1" if weights == "s8" else "u1"
    g.around(1, 0)
    scale = random.uniform(1e-4, 2e-4, 8) if per_channel else 1.5e-4
    zero = np.zeros(8) if per_channel else 0
    if weights == "u8":
        zero = np.full(8, 128) if per_channel else 120
    x = g.last
    w = g.op("DequantizeLinear", *g.qparams(scale, zero, kind), source=g.codes((8, 3, 3, 3), kind),
             axis=0)
    inputs = [w]
    if bias == "codes":
        codes = g.const(random.integers(-2000, 2000, 8).astype("i4"))
        inputs.append(g.op("DequantizeLinear", g.const(np.asarray(scale, "f4")), source=codes, axis=0))
    elif bias == "real":
        inputs.append(g.const(random.uniform(-0.2, 0.2, 8).astype("f4")))
    g.op("Conv", *inputs, source=x, pads=[1, 1, 1, 1], strides=[2, 2])
    g.op("Relu")
    g.around(0.02, 0)
    g.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    g.around(0.02, 0)


def quantized_end(g, inputs, scale=0.02):
    g.op("GlobalAveragePool")
    g.around(0.012, 3)
    g.op("Flatten")
    x = g.around(0.012, 3)
    real = g.const(g.weight(10, inputs))  # codes made from real numbers, as some tools leave it
    q = g.qparams(0.01, 0, "i1")
    g.op("QuantizeLinear", *q, source=real)
    w = g.op("DequantizeLinear", *q)
    g.op("Gemm", w, source=x, transB=1)
    g.around(scale, 100)


def coded(weights, per_channel, bias):
    def build(g):
        quantized_layers(g, weights, per_channel, bias)
        quantized_end(g, 8)

    return build


def mixed(g):
    """A float layer between quantized ones."""
    quantized_layers(g, "s8", True, "codes")
    g.conv(6, 8, pads=[1, 1, 1, 1])
    g.op("Clip", g.const(np.float32(0)), g.const(np.float32(6)))
    g.around(0.02, 5)
    quantized_end(g, 6)


def operators(g):
    """QOperator form on bytes in NHWC, with clamps on codes."""
    g.op("Transpose", perm=[0, 3, 1, 2])
    first, second, third = g.qparams(1, 0), g.qparams(0.03, 20), g.qparams(0.02, 60)
    w = [g.codes((8, 3, 3, 3), "u1"), *g.qparams(2e-4, 131)]
    g.op("QLinearConv", *first, *w, *second, g.const(random.integers(-900, 900, 8).astype("i4")),
         pads=[1, 1, 1, 1], strides=[2, 2])
    x = g.op("Clip", g.const(np.uint8(20)), g.const(np.uint8(127)))
    w = [g.codes((8, 8, 1, 1), "u1"), *g.qparams(0.004, 125)]
    y = g.op("QLinearConv", *second, *w, *third)
    g.op("QLinearAdd", *second, y, *third, *third, source=x, domain="com.microsoft")
    fourth = g.qparams(0.011, 64)
    g.op("QLinearGlobalAveragePool", *third, *fourth, domain="com.microsoft", channels_last=0)
    g.op("Flatten")
    fifth = g.qparams(0.02, 128)
    g.op("QLinearMatMul", *fourth, g.codes((8, 10), "u1"), *g.qparams(0.01, 128), *fifth)
    g.op("DequantizeLinear", *fifth)


def attributes(g):
    """What is easily ignored: a truth value, a type, pads that do not count, numbers that are rounded."""
    last = g.last
    rounded = g.op("Cast", source=g.const(np.float32(4098)), to=TensorProto.FLOAT16)  # 4096
    rounded = g.op("Cast", source=rounded, to=TensorProto.FLOAT)
    g.op("Sub", rounded, source=last)
    g.op("Add", g.const(np.float32(3976)))
    g.op("Mul", g.const(np.float32(1 / 60)))
    g.conv(6, 3, auto_pad="VALID", strides=[2, 2])
    g.op("Dropout", g.const(np.float32(0.5)), g.const(np.bool_(False)))
    scale = g.const(np.float32(0.04))
    g.op("QuantizeLinear", scale, output_dtype=TensorProto.INT8)
    g.op("DequantizeLinear", scale)
    g.op("GlobalAveragePool")
    g.op("Flatten")
    g.op("Gemm", g.const(g.weight(6, 10)))


def viewed(g, opset):
    """F.pad and x.view(x.size(0), -1) as PyTorch writes them with an open batch."""
    g.scaled()
    x = g.last
    zeros = g.op("ConstantOfShape", source=g.const(np.array([4], "i8")),
                 value=helper.make_tensor("zero", TensorProto.INT64, [1], [0]))
    g.op("Concat", zeros, source=g.const(np.array([1, 2, 2, 0], "i8")), axis=0)
    g.op("Reshape", g.const(np.array([-1, 2], "i8")))
    g.op("Slice", *[g.const(np.array([n], "i8")) for n in (-1, -(1 << 63) + 1, 0, -1)])
    g.op("Transpose", perm=[1, 0])
    g.op("Reshape", g.const(np.array([-1], "i8")))
    pads = g.op("Cast", to=TensorProto.INT64)  # 0, 0, top 2, left 1, 0, 0, bottom 0, right 2
    g.op("Pad", pads, source=x)
    x = g.conv(4, 3, strides=[4, 4])
    shape = g.op("Shape")
    if opset < 13:
        batch = g.op("Unsqueeze", source=g.op("Gather", g.const(np.int64(0))), axes=[0])
    else:
        batch = g.op("Slice", *[g.const(np.array([n], "i8")) for n in (0, 1)])
    sizes = [g.op("Gather", g.const(np.int64(n)), source=shape) for n in (1, 2, 3)]
    product = g.op("Mul", sizes[2], source=g.op("Mul", sizes[1], source=sizes[0]))
    rest = g.op("Unsqueeze", g.const(np.array([0], "i8"))) if opset > 12 else g.op("Unsqueeze", axes=[0])
    g.op("Reshape", g.op("Concat", rest, source=batch, axis=0), source=x)
    g.op("Gemm", g.const(g.weight(4 * 8 * 9, 10)), g.const(np.zeros(10, "f4")))


def scales(g):
    """Constants on either side: of the input, a layer, a batch norm, an activation, a dense layer."""
    def constant(kind, *shape, first=False):
        numbers = g.const(random.uniform(0.5, 1.5, shape).astype("f4"))
        return g.op(kind, g.last, source=numbers) if first else g.op(kind, numbers)

    constant("Sub", first=True)
    g.op("Div", g.const(np.array([60, 61, 62], "f4").reshape(3, 1, 1)))
    g.conv(6, 3, strides=[2, 2], bias=False)
    constant("Mul", 1, 6, 1, 1, first=True)
    constant("Sub", 6, 1, 1, first=True)
    g.op("BatchNormalization", *[g.const(random.uniform(0.5, 1.5, 6).astype("f4")) for _ in range(4)])
    constant("Sum", 1, 6, 1, 1)
    x = g.op("Relu")
    constant("Mul", 1, 1, 1, 1)
    y = constant("Sub", 6, 1, 1)
    g.op("Sum", x, y)
    g.op("Transpose", perm=[0, 2, 3, 1])
    constant("Div", 6)
    g.op("Transpose", perm=[0, 3, 1, 2])
    g.op("GlobalAveragePool")
    g.op("Flatten")
    g.op("Gemm", g.const(g.weight(10, 6)), g.const(random.uniform(-1, 1, 10).astype("f4")), transB=1, alpha=0.5,
         beta=-2.0)
    constant("Mul", 10)
    constant("Add", 1, 10, first=True)
    g.op("BatchNormalization", *[g.const(random.uniform(0.5, 1.5, 10).astype("f4")) for _ in range(4)])


def steps(g):
    """Means and squeezes axis by axis, height and width as one; pads in front of pools."""
    g.scaled()
    g.conv(6, 3, strides=[2, 2])
    g.op("Pad", pads=[0, 0, 1, 1, 0, 0, 0, 1], value=float("-inf"))
    g.op("MaxPool", kernel_shape=[2, 3], strides=[2, 1])
    g.op("Relu")
    g.op("Pad", pads=[0, 0, 1, 0, 0, 0, 1, 0])
    g.op("MaxPool", kernel_shape=[3, 3], strides=[1, 2])
    g.op("Pad", pads=[0, 0, 0, 1, 0, 0, 1, 0])
    x = g.op("AveragePool", kernel_shape=[2, 2])
    g.op("ReduceMean", axes=[3], keepdims=1)
    g.op("ReduceMean", axes=[2], keepdims=0)
    two = g.op("Squeeze", axes=[2])
    g.op("ReduceMean", source=x, axes=[2], keepdims=0)
    three = g.op("ReduceMean", axes=[2], keepdims=0)
    g.op("Reshape", g.const(np.array([0, 0, -1], "i8")), source=x)
    g.op("GlobalAveragePool")
    four = g.op("Flatten")
    g.op("Sum", three, four, source=two)
    g.op("Gemm", g.const(g.weight(6, 10)), g.const(np.zeros(10, "f4")))


def option_a(g):
    """The shortcut without weights: every second pixel, channels of zeros; and every third row alone."""
    def part(axis, step):
        return g.op("Slice", *[g.const(np.array([n], "i8")) for n in (0, 1 << 40, axis, step)])

    g.scaled()
    x = g.conv(6, 3, strides=[2, 2])
    part(2, 2)
    y = part(3, 2)
    z = g.op("Pad", g.const(np.array([0, 1, 0, 0, 0, 3, 0, 0], "i8")))
    g.op("Add", g.conv(10, 6, pads=[1, 1, 1, 1], strides=[2, 2], source=x), source=z)
    g.op("Relu")
    part(-2, 3)
    g.op("Pad", g.const(np.array([0, 0, 1, 0, 0, 2, 0, 1], "i8")))
    g.conv(8, 12)
    g.op("GlobalAveragePool")
    w = g.op("GlobalAveragePool", source=y)
    g.op("Pad", g.const(np.array([0, 0, 0, 0, 0, 2, 0, 0], "i8")), source=w)
    g.op("Add", g.last, source=g.nodes[-3].output[0])
    g.op("Flatten")
    g.op("Gemm", g.const(g.weight(8, 10)), g.const(np.zeros(10, "f4")))


def branches(g):
    """Concat of four, of any layout; dilation, wide padding, ceil_mode, a global maximum."""
    g.scaled()
    x = g.conv(6, 3, pads=[1, 1, 1, 1])
    parts = [g.conv(n, 6, source=x, **a) for n, a in (
        (3, dict(dilations=[2, 3], pads=[2, 3, 2, 3])), (5, dict(kernel=1)), (4, dict(pads=[1, 1, 1, 1])))]
    g.op("Concat", *parts, source=x, axis=-3)
    x = g.conv(5, 18, kernel=1, pads=[3, 1, 2, 4])
    y = g.op("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    z = g.op("AveragePool", source=x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    w = g.op("AveragePool", source=x, kernel_shape=[3, 3], strides=[3, 3], pads=[1, 0, 0, 2], ceil_mode=1,
             count_include_pad=1)
    w = g.op("GlobalMaxPool", source=w)
    y = g.op("Concat", z, source=y, axis=1)
    y = g.op("GlobalAveragePool", source=y)
    g.op("Concat", g.op("Flatten", source=w), source=g.op("Flatten", source=y), axis=1)


def shuffled(g):
    """ShuffleNet's way: a split, one half through a layer, the channels shuffled; and a slice."""
    g.scaled()
    x = g.conv(12, 3, pads=[1, 1, 1, 1])
    g.nodes.append(helper.make_node("Split", [x], ["left", "right"], "split", axis=1, split=[5, 7]))
    y = g.conv(5, 7, kernel=1, source="right")
    g.op("Concat", y, source="left", axis=1)
    g.op("Reshape", g.const(np.array([-1, 5, 2, 32, 32], "i8")))
    g.op("Transpose", perm=[0, 2, 1, 3, 4])
    g.op("Reshape", g.const(np.array([0, -1, 32, 32], "i8")))
    g.op("Slice", *[g.const(np.array(n, "i8")) for n in ([3, 0], [9, 99], [1, 2], [1, 2])])
    g.op("Pad", g.const(np.array([0, 0, 1, 0, 0, 0, 0, 2], "i8")))
    g.op("Relu")
    g.op("GlobalAveragePool")
    g.op("Flatten")


def coded_branches(g):
    """QLinearConcat of three scales, one of which is the result's, and zero points at both ends."""
    first, second, third, fourth = (g.qparams(*q) for q in ((1, 0), (0.03, 20), (0.02, 255), (0.043, 0)))
    x = g.op("QuantizeLinear", *first)
    w = [g.codes((8, 3, 3, 3), "u1"), *g.qparams(2e-4, 131)]
    bias = g.const(random.integers(-900, 900, 8).astype("i4"))
    parts = [g.op("QLinearConv", *first, *w, *q, bias, source=x, dilations=[d, d], pads=[d, d, d, d])
             for d, q in ((1, second), (2, third), (3, fourth))]
    g.op("QLinearConcat", second[1], parts[0], *second, parts[1], *third, parts[2], *fourth, source=second[0],
         domain="com.microsoft", axis=1)
    x = g.op("QLinearAveragePool", *second, *third, domain="com.microsoft", kernel_shape=[3, 3], strides=[2, 2],
             pads=[1, 1, 0, 0], count_include_pad=1)
    g.op("MaxPool", kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1)
    fifth = g.qparams(0.02, 128)
    g.op("QLinearGlobalAveragePool", *third, *fifth, domain="com.microsoft", channels_last=0)
    g.op("Flatten")
    g.op("QLinearMatMul", *fifth, g.codes((24, 10), "u1"), *g.qparams(0.01, 128), *second)
    g.op("DequantizeLinear", *second)


def after_conv(kind, *constants, **attributes):
    def build(g):
        g.conv(6, 3)
        g.op(kind, *[g.const(c) for c in constants], **attributes)
        g.op("GlobalAveragePool")
    return build


def two_results(kind, **attributes):
    def build(g):
        x = g.conv(6, 3, kernel=1)
        g.op(kind, x, source=g.conv(6, 3, kernel=1, source="in"), **attributes)
    return build


def real_batch_norm(g):
    g.conv(6, 3)
    numbers = [g.const(np.ones(6, "f4")) for _ in range(4)]
    g.nodes.append(helper.make_node("BatchNormalization", [g.last, *numbers], ["y", "mean", "variance"], "norm"))
    g.last = "y"


def padded(number, kind, *constants, **attributes):
    def build(g):
        g.conv(6, 3)
        g.op("Pad", g.const(np.array([0, 0, 1, 1, 0, 0, 0, 0], "i8")), g.const(np.float32(number)))
        g.op(kind, *[g.const(c) for c in constants], **attributes)
    return build


def batch_twice(g):
    x = g.conv(6, 3)
    g.op("Gather", g.const(np.array([0], "i8")), source=g.op("Shape"))
    g.op("Mul", g.const(np.int64(2)))
    g.op("Concat", g.const(np.array([-1], "i8")), axis=0)
    g.op("Reshape", g.last, source=x)


def many_reasons(g):
    """Two of one kind, others behind them, and one that no import can reach."""
    g.conv(6, 3)
    g.op("LeakyRelu")
    g.conv(6, 6)
    g.op("LeakyRelu")
    x = g.conv(6, 6, pads=[1, 1, 1, 1])
    g.op("Clip", g.const(np.float32(-1)), g.const(np.float32(1)))
    g.op("Mul", x)
    g.op("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])
    g.op("Relu")
    g.op("Einsum")


WEIGHT = np.zeros((6, 6, 1, 1), "f4")
REFUSED = {
    "activation": (after_conv("LeakyRelu"), "(LeakyRelu): this operator .*; of activations there are Relu and Clip"),
    "shape": (after_conv("Size"), "(Size): this operator is not supported; .*fold it with onnxsim"),
    "constant": (after_conv("Shape"), "(GlobalAveragePool): an input is a constant where a tensor is expected; fold"),
    "other": (after_conv("Einsum"), "(Einsum): this operator is not supported; docs/interop.md lists"),
    "scaled": (after_conv("Mul", np.ones((30, 30), "f4")), "(Mul): its constant must be one number, or one for each"),
    "lowest": (padded(-np.inf, "Conv", WEIGHT), "(Conv): it reads what a Pad has padded with the lowest number, .*; pad"),
    "zeros": (padded(0, "MaxPool", kernel_shape=[2, 2]), "(MaxPool): zeros that a Pad adds count in MaxPool .*; pad by"),
    "part": (after_conv("Slice", *[np.array([n], "i8") for n in (1, 30, 2, 1)]),
             "(Slice): only every so many rows and columns, .*; end the network"),
    "rows_split": (after_conv("Split", axis=3), "(Split): a tensor can be split along its channels only; transpose"),
    "turned": (after_conv("Gemm", WEIGHT[:, :, 0, 0], transA=1), "(Gemm): transA is not supported, .*; export without it"),
    "images": (batch_twice, "(Mul): it computes with the number of images, which is open; export with a fixed"),
    "product": (two_results("Mul"), "(Mul): two results can be joined by Add only"),
    "double": (after_conv("Cast", to=TensorProto.DOUBLE), "(Cast): conversion to DOUBLE .*; leave it out"),
    "over_kernel": (after_conv("MaxPool", kernel_shape=[1, 1], pads=[1, 1, 1, 1]),
                    "(MaxPool): it pads by 1 where its kernel is 1, .*; take less padding"),
    "rows": (two_results("Concat", axis=2), "(Concat): tensors can be joined along their channels only; transpose"),
    "kernel_shape": (after_conv("Conv", WEIGHT, kernel_shape=[3, 3]), "(Conv): its kernel_shape is not .*; the file"),
    "pads": (after_conv("Conv", WEIGHT, auto_pad="VALID", pads=[0, 0, 1, 1]), "(Conv): it has both pads and auto_pad"),
    "auto_pad": (after_conv("Conv", WEIGHT, auto_pad="SAME"), "(Conv): its auto_pad is none of"),
    "training": (real_batch_norm, "(BatchNormalization): training mode.*; export the model in evaluation mode"),
    "sixteen": (after_conv("QuantizeLinear", np.float32(0.1), output_dtype=TensorProto.INT16),
                "(QuantizeLinear): its output_dtype is neither UINT8 nor INT8; quantize to 8 bits"),
}

def whole_window(g):
    """A window as large as the image, whose stride hides it: sums of halves and an odd zero point."""
    first, second, third = g.qparams(1, 0), g.qparams(1, 81), g.qparams(0.5, 128)
    g.op("QuantizeLinear", *first)
    g.op("MaxPool", kernel_shape=[16, 16], strides=[16, 16])
    g.op("QLinearAveragePool", *first, *second, domain="com.microsoft", kernel_shape=[2, 2], strides=[3, 2])
    g.op("Flatten")
    g.op("QLinearMatMul", *second, g.codes((3, 10), "u1"), *g.qparams(0.01, 128), *third)
    g.op("DequantizeLinear", *third)


CASES = {
    "real_opset7": (opset7, dict(opset=7), {}),
    "real_opset9": (opset9, dict(opset=9), {}),
    "real_nhwc": (nhwc, dict(opset=11, shape=("N", 32, 32, 3)), {}),
    "real_external": (lambda g: reduced(g, False), dict(opset=13),
                      dict(save_as_external_data=True, location="real_external.data", size_threshold=130)),
    "real_opset18": (lambda g: reduced(g, True), dict(opset=18), {}),
    "real_opset21": (lambda g: reduced(g, True), dict(opset=21), {}),
    "real_viewed11": (lambda g: viewed(g, 11), dict(opset=11), {}),
    "real_viewed17": (lambda g: viewed(g, 17), dict(opset=17), {}),
    "real_scales": (scales, dict(opset=15), {}),
    "real_option_a": (option_a, dict(opset=13), {}),
    "real_steps": (steps, dict(opset=10), {}),
    "real_branches": (branches, dict(opset=11), {}),
    "real_shuffled": (shuffled, dict(opset=11), {}),
    "code_branches_exact": (coded_branches, dict(opset=13), {}),
    "code_u8_exact": (coded("u8", False, "codes"), dict(opset=13), {}),
    "code_channels": (coded("u8", True, "real"), dict(opset=13), {}),
    "code_s8": (coded("s8", True, "real"), dict(opset=13), {}),
    "code_without_bias": (coded("s8", False, None), dict(opset=13), {}),
    "code_mixed": (mixed, dict(opset=13), {}),
    "code_attributes": (attributes, dict(opset=21), {}),
    "code_whole_window_exact": (whole_window, dict(opset=13), {}),
    "code_operators_exact": (operators, dict(opset=13, shape=("N", 32, 32, 3), kind=TensorProto.UINT8), {}),
}

if sys.argv[1] == "--check":
    for file in sys.argv[2:]:
        onnx.checker.check_model(onnx.load(file), full_check=True)
else:
    for name, (build, graph, saving) in CASES.items():
        g = Graph(**graph)
        build(g)
        g.save(f"{sys.argv[1]}/{name}.onnx", **saving)
    for name, (build, words) in REFUSED.items():
        g = Graph(21)
        build(g)
        g.save(f"{sys.argv[1]}/refused_{name}.onnx")
        with open(f"{sys.argv[1]}/refused_{name}.words", "w") as file:
            file.write(words)
    g = Graph(13)
    many_reasons(g)
    g.save(f"{sys.argv[1]}/many.onnx")
    g = Graph(13)
    g.scaled()
    g.op("Cast", to=TensorProto.FLOAT16)
    g.op("Cast", to=TensorProto.FLOAT)
    g.conv(10, 3)
    g.op("GlobalAveragePool")
    g.save(f"{sys.argv[1]}/half.onnx")
    g = Graph(13)  # calibrated on what torchvision makes of pixels
    x = g.around(4.76 / 255, 113)
    w = g.op("DequantizeLinear", *g.qparams(0.01, 0, "i1"), source=g.codes((10, 3, 3, 3)))
    g.op("Conv", w, source=x)
    g.op("GlobalAveragePool")
    g.around(0.1, 128)
    g.save(f"{sys.argv[1]}/unit_codes.onnx")
