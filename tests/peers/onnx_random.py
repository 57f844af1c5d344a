"""Writes random ONNX models, float and quantized, for the differential test: what is imported must
compute what ONNX Runtime computes, and what cannot be imported must be refused by name.

    python3 onnx_random.py DIRECTORY COUNT [SEED]

writes NUMBER.onnx, NUMBER.u8 (images, N x H x W x C) and models.json, a list of

    name, height, width, channels, images   of the input
    layout, type    how the file wants it: "nchw" or "nhwc", "float" or "uint8"
    output, order   the output made last; of each output "nchw" where it is N x C x H x W
    kind            "real"; "codes": all must be equal; "qdq": but for a few that lie on a border
    step            of the last codes
    signed          s8 activations
"""
import json
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGES = 3
random = np.random.default_rng(1)


def chance(share):
    return random.random() < share


def pick(*choices):
    return choices[int(random.integers(len(choices)))]


def window_out(size, kernel, stride, before, after):
    return (size + before + after - kernel) // stride + 1


class Tensor:
    """A name, its layout ("nchw", "nhwc" or "flat") and its sizes; codes have scale and zero."""

    def __init__(self, name, layout, c, h, w, q=None):
        self.name, self.layout, self.c, self.h, self.w, self.q = name, layout, c, h, w, q

    def like(self, name, **changes):
        made = Tensor(name, self.layout, self.c, self.h, self.w, self.q)
        made.__dict__.update(changes)
        return made

    def shape(self):
        return self.layout, self.c, self.h, self.w

    def pixel(self):
        return self.h == self.w == 1


class Model:
    def __init__(self, opset=13):
        self.opset, self.nodes, self.constants, self.count = opset, [], [], 0
        self.outputs, self.features = [], []

    def const(self, array):
        self.count += 1
        self.constants.append(numpy_helper.from_array(np.asarray(array), f"k{self.count}"))
        return f"k{self.count}"

    def op(self, kind, *inputs, domain="", **attributes):
        self.count += 1
        name = f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], "n_" + name, domain=domain,
                                           **attributes))
        return name

    def save(self, path, shape, kind):
        made = [n.output[0] for n in self.nodes]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs]
        graph = helper.make_graph(
            self.nodes, "random", [helper.make_tensor_value_info("x", kind, shape)], outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 7
        onnx.save_model(model, path)
        return max(self.outputs, key=made.index)


    # ---- What older opsets spell as attributes ----

    def axes_op(self, kind, name, axes):
        if self.opset < 13:
            return self.op(kind, name, axes=list(axes))
        return self.op(kind, name, self.const(np.array(axes, "i8")))

    def clip(self, name, low, high):
        if self.opset < 11:
            return self.op("Clip", name, min=float(low), max=float(high))
        return self.op("Clip", name, self.const(np.float32(low)), self.const(np.float32(high)))

    def slice(self, name, start, end, axis=0, step=1):
        if self.opset < 10:
            return self.op("Slice", name, starts=[start], ends=[end], axes=[axis])
        return self.op("Slice", name, *[self.const(np.array([n], "i8")) for n in (start, end, axis, step)])

    # ---- What exporters compute while the network runs, though no image changes it ----

    def computed(self, numbers):
        """A vector of integers, in a roundabout way."""
        numbers = np.array(numbers, "i8")
        way = pick("plain", "range", "parts", "scaled", "cast", "node", "picked", "tall")
        if way == "range" and self.opset >= 11:
            count = self.op("Range", *[self.const(np.int64(n)) for n in (5, 5 + len(numbers), 1)])
            return self.op("Sub", self.op("Add", self.const(numbers), count), self.const(np.arange(5, 5 + len(numbers))))
        if way == "parts" and len(numbers) > 1:
            first = self.op("ConstantOfShape", self.const(np.array([1], "i8")),
                            value=helper.make_tensor("v", TensorProto.INT64, [1], numbers[:1])) \
                if self.opset >= 9 else self.const(numbers[:1])
            return self.op("Concat", first, self.const(numbers[1:]), axis=0)
        if way == "scaled":
            return self.op("Div", self.op("Mul", self.const(numbers), self.const(np.int64(3))), self.const(np.int64(3)))
        if way == "cast":
            real = self.op("Cast", self.const(numbers.astype("i4")), to=TensorProto.FLOAT)
            return self.op("Cast", real, to=TensorProto.INT64)
        if way == "node":
            return self.op("Constant", value=numpy_helper.from_array(numbers, "v"))
        if way == "picked":
            order = random.permutation(len(numbers))
            mixed = np.zeros_like(numbers)
            mixed[order] = numbers
            return self.op("Gather", self.const(mixed), self.const(order.astype("i8")))
        if way == "tall":  # what F.pad leaves
            tall = self.op("Reshape", self.const(np.repeat(numbers, 2)), self.const(np.array([-1, 2], "i8")))
            turned = self.op("Transpose", tall, perm=[1, 0])
            first = self.op("Squeeze", self.slice(turned, 1, 2), axes=[0]) if self.opset < 13 else \
                self.op("Squeeze", self.slice(turned, 1, 2, step=1), self.const(np.array([0], "i8")))
            if self.opset < 10:
                return first
            back = self.slice(first, -1, -(1 << 62), 0, -1)
            return self.slice(back, -1, -(1 << 62), 0, -1)
        return self.const(numbers)

    def batch_of(self, name):
        """The number of images, as a vector of one number."""
        if self.opset >= 15 and chance(0.3):
            return self.op("Shape", name, start=0, end=1)
        shape = self.op("Shape", name)
        if chance(0.3):
            shape = self.op("Cast", self.op("Cast", shape, to=TensorProto.INT32), to=TensorProto.INT64)
        if chance(0.4):
            return self.slice(shape, 0, 1)
        one = self.op("Gather", shape, self.const(np.int64(0)), axis=0)
        if chance(0.2):
            one = self.op("Mul", one, self.const(np.int64(1)))
        return self.axes_op("Unsqueeze", one, [0])

    def view(self, name, *sizes):
        """x.view(x.size(0), ...) with an open batch, or the same with a 0 or -1 in its place."""
        if chance(0.5):
            first = pick(0, -1) if -1 not in sizes else 0
            return self.op("Reshape", name, self.computed([first, *sizes]))
        rest = self.computed(list(sizes))
        return self.op("Reshape", name, self.op("Concat", self.batch_of(name), rest, axis=0))


def uniform(*shape):
    return random.uniform(-1, 1, shape).astype("f4")


def commutes(m, kind, a, b):
    return m.op(kind, b, a) if chance(0.5) else m.op(kind, a, b)


# ---- What a float model is made of: each returns the new tensor, or None where it does not fit ----

def windows(t, same_allowed=True):
    kernel = [int(random.integers(1, min(4, t.h) + 1)), int(random.integers(1, min(4, t.w) + 1))]
    stride = [pick(1, 1, 2, 3), pick(1, 1, 2)]
    pads = [int(random.integers(0, k)) if chance(0.5) else 0 for k in kernel + kernel]
    made = {"kernel_shape": kernel, "strides": stride}
    if same_allowed and chance(0.2):
        made["auto_pad"] = pick("SAME_UPPER", "SAME_LOWER")
        return made, -(-t.h // stride[0]), -(-t.w // stride[1])
    made["pads"] = pads
    return (made, window_out(t.h, kernel[0], stride[0], pads[0], pads[2]),
            window_out(t.w, kernel[1], stride[1], pads[1], pads[3]))


def groups_of(channels):
    return pick(1, 1, channels, *[g for g in range(1, channels + 1) if channels % g == 0])


def conv(m, t):
    if t.layout != "nchw":
        return None
    attributes, h, w = windows(t)
    if chance(0.05) and "pads" in attributes:
        attributes["dilations"] = [2, 1]
        h = window_out(t.h, 2 * attributes["kernel_shape"][0] - 1, attributes["strides"][0],
                       attributes["pads"][0], attributes["pads"][2])
        if h < 1:
            return None
    group = groups_of(t.c)
    outputs = group * int(random.integers(1, 4))
    kernel = attributes["kernel_shape"]
    fan = t.c // group * kernel[0] * kernel[1]
    inputs = [m.const(uniform(outputs, t.c // group, *kernel) * np.float32((3 / fan) ** 0.5))]
    if chance(0.7):
        inputs.append(m.const(uniform(outputs)))
    return t.like(m.op("Conv", t.name, *inputs, group=group, **attributes), c=outputs, h=h, w=w)


def dense(m, t):
    if t.layout != "flat":
        return None
    inputs, outputs = t.c * t.h * t.w, int(random.integers(2, 9))
    weight = uniform(inputs, outputs) * np.float32((3 / inputs) ** 0.5)
    turned = chance(0.5)
    if chance(0.3):
        name = m.op("MatMul", t.name, m.const(weight))
        if chance(0.5):
            name = commutes(m, "Add", name, m.const(uniform(outputs)))
    else:
        bias = pick([] if m.opset > 10 else [uniform(1)], [uniform(outputs)], [uniform(1, outputs)], [uniform(1)])
        scale = pick({}, {}, {"alpha": 0.5}, {"alpha": -2.0, "beta": 3.0}, {"beta": 0.0})
        name = m.op("Gemm", t.name, m.const(weight.T.copy() if turned else weight),
                    *[m.const(b) for b in bias], transB=int(turned), **scale)
    return Tensor(name, "flat", outputs, 1, 1)


def batch_norm(m, t):
    if t.layout != "nchw" and not (t.layout == "flat" and t.pixel()):
        return None
    params = [random.uniform(0.5, 1.5, t.c).astype("f4"), uniform(t.c), uniform(t.c),
              random.uniform(0.5, 1.5, t.c).astype("f4")]
    return t.like(m.op("BatchNormalization", t.name, *map(m.const, params)))


def activation(m, t):
    kind = pick("Relu", "Relu", "Clip", "Odd")
    if kind == "Relu":
        return t.like(m.op("Relu", t.name))
    high = 6 if kind == "Clip" else pick(1, 6, 4)
    low = 0 if kind == "Clip" else pick(0, -1)
    return t.like(m.clip(t.name, low, high))


def pool(m, t):
    if t.layout == "flat":
        return None
    if t.layout == "nhwc":  # ONNX takes the rows for channels, and so must whoever imports it
        return Tensor(m.op("GlobalAveragePool", t.name), "nchw", t.h, 1, 1) if chance(0.3) else None
    attributes, h, w = windows(t)
    kind = pick("MaxPool", "AveragePool")
    if kind == "AveragePool":
        attributes["count_include_pad"] = pick(0, 1)
    elif chance(0.1) and "pads" in attributes and m.opset >= 10:
        attributes["ceil_mode"] = 1
        h, w = (-(-(size + attributes["pads"][i] + attributes["pads"][i + 2] -
                    attributes["kernel_shape"][i]) // attributes["strides"][i]) + 1
                for i, size in enumerate((t.h, t.w)))
    return t.like(m.op(kind, t.name, **attributes), h=h, w=w)


def average(m, t):
    if t.layout == "flat":
        return None
    if t.layout == "nchw" and chance(0.5):
        return t.like(m.op("GlobalAveragePool", t.name), h=1, w=1)
    keep = int(chance(0.5))
    axes = [2, 3] if t.layout == "nchw" else [1, 2]
    axes = axes[::pick(1, -1)]
    if chance(0.5):
        name = m.op("ReduceMean", t.name, axes=axes, keepdims=keep)
        return t.like(name, h=1, w=1, layout=t.layout if keep else "flat")
    first_keep = int(keep or chance(0.5))  # one by one
    name = m.op("ReduceMean", t.name, axes=axes[:1], keepdims=first_keep)
    if chance(0.2):
        name = m.op("Relu", name)
    second = axes[1] - (0 if first_keep or axes[1] < axes[0] else 1)
    if chance(0.1) and keep:
        return t.like(name, h=1 if axes[0] == min(axes) else t.h, w=t.w if axes[0] == min(axes) else 1)
    name = m.op("ReduceMean", name, axes=[second], keepdims=keep)
    if keep or not first_keep:
        return t.like(name, h=1, w=1, layout=t.layout if keep else "flat")
    return t.like(m.axes_op("Squeeze", name, [axes[0] - (0 if axes[0] < axes[1] else 1)]), h=1, w=1, layout="flat")


def lines(m, t):
    """Height and width in one: x.view(n, c, -1).mean(2) and its kin."""
    if t.layout == "flat":
        return None
    nchw = t.layout == "nchw"
    sizes = (t.c, -1) if nchw else (-1, t.c)
    name = m.view(t.name, *pick(sizes, sizes, (t.c, t.h * t.w) if nchw else (t.h * t.w, t.c)))
    axis = 2 if nchw else 1
    if chance(0.3):
        name = m.op("Relu", name)
    if chance(0.3):
        name = commutes(m, pick("Mul", "Add"), name, m.const(uniform(t.c, 1) if nchw else uniform(t.c)))
    if chance(0.3):
        name, axis, nchw = m.op("Transpose", name, perm=[0, 2, 1]), 3 - axis, not nchw
    if chance(0.3):
        sizes = (t.c, t.h, t.w) if nchw else (t.h, t.w, t.c)
        return t.like(m.view(name, *sizes), layout="nchw" if nchw else "nhwc")
    if nchw and chance(0.4):
        name = m.op("GlobalAveragePool", name)
        return t.like(m.axes_op("Squeeze", name, [2]), h=1, w=1, layout="flat")
    if chance(0.4):
        name = m.op("ReduceMean", name, axes=[axis], keepdims=1)
        return t.like(m.view(name, t.c, 1, 1), h=1, w=1, layout="nchw")
    return t.like(m.op("ReduceMean", name, axes=[axis], keepdims=0), h=1, w=1, layout="flat")


def pad(m, t):
    if t.layout == "flat":
        return None
    by = [int(n) for n in random.integers(0, 3, 4)]
    at = [2, 3] if t.layout == "nchw" else [1, 2]
    pads = np.zeros(8, "i8")
    pads[[at[0], at[1], at[0] + 4, at[1] + 4]] = by
    value = pick(0, 0, 1, -np.inf, np.finfo("f4").min) if chance(0.5) else 0
    if m.opset < 11:
        name = m.op("Pad", t.name, pads=[int(n) for n in pads], value=float(value))
    else:
        name = m.op("Pad", t.name, m.computed(pads), *([m.const(np.float32(value))] if value or chance(0.2) else []))
    return t.like(name, h=t.h + by[0] + by[2], w=t.w + by[1] + by[3])


def picked(m, t):
    """Every so many rows, columns, and channels of zeros, as in ResNet's option A; at times what is no such."""
    if t.layout == "flat" or m.opset < 10:
        return None
    at = 2 if t.layout == "nchw" else 1
    name, size = t.name, [t.h, t.w]
    for side in pick([0], [1], [0, 1]):
        step, start = pick(2, 2, 3, 300), pick(*[0] * 9, 1)
        name = m.slice(name, start, pick(1 << 40, size[side]), at + side - pick(0, 4), step)
        size[side] = max(0, -(-(size[side] - start) // step))
    if chance(0.1):
        name = m.op("Relu", name)
    by = pick((0, 0), (1, 2), (0, 3), (2, 0))
    if sum(by) and m.opset > 10:
        pads = np.zeros(8, "i8")
        pads[[1 if at == 2 else 3, 5 if at == 2 else 7]] = by
        name = m.op("Pad", name, m.computed(pads))
    else:
        by = (0, 0)
    return t.like(name, c=t.c + sum(by), h=size[0], w=size[1])


def padded_pool(m, t):
    """A Pad that a pool takes in, or not."""
    if t.layout != "nchw":
        return None
    if chance(0.5):
        t = t.like(m.op("Relu", t.name))
    return pool(m, pad(m, t))


def scaled(m, t):
    """Mul and Add by constants, on either side."""
    if t.layout == "flat" and not t.pixel():
        return None
    full = {"nchw": (t.c, 1, 1), "nhwc": (t.c,), "flat": (t.c,)}[t.layout]
    full = pick(full, full, (1,) * (2 if t.layout == "flat" else 4))[:4]
    name = t.name
    for kind in [pick("Mul", "Add", "Sub", "Div", "Sum" if m.opset > 7 else "Add") for _ in range(pick(1, 2, 3))]:
        numbers = m.const((random.uniform(0.5, 1.5, full) * pick(1, -1)).astype("f4"))
        name = m.op(kind, name, numbers) if kind == "Div" else commutes(m, kind, name, numbers)
    return t.like(name)


def residual(m, t):
    fitting = [f for f in m.features if f.shape() == t.shape()]
    if not fitting:
        return None
    if chance(0.2):
        return t.like(m.op("Sum", t.name, pick(*fitting).name, pick(*fitting).name))
    return t.like(commutes(m, pick("Add", "Add", "Sum"), t.name, pick(*fitting).name))


def constants(m, t):
    kind = pick("Add", "Mul", "Sub", "Div")
    full = {"nchw": (t.c, 1, 1), "nhwc": (t.c,), "flat": (t.c * t.h * t.w,)}[t.layout]
    full = pick((), full, (1,) + full)
    numbers = m.const((random.uniform(0.5, 1.5, full)).astype("f4"))
    return t.like(m.op(kind, t.name, numbers) if kind in ("Sub", "Div") else commutes(m, kind, t.name, numbers))


def transpose(m, t):
    if t.layout == "flat":
        return None
    if t.layout == "nchw":
        return t.like(m.op("Transpose", t.name, perm=[0, 2, 3, 1]), layout="nhwc")
    return t.like(m.op("Transpose", t.name, perm=[0, 3, 1, 2]), layout="nchw")


def flatten(m, t):
    """The order of rows is C,H,W or H,W,C by what was flattened; "order" remembers it."""
    size = t.c * t.h * t.w
    if chance(0.4):
        name = m.op("Flatten", t.name, axis=pick(1, 1, -1 if t.layout == "flat" else -3) if m.opset > 10 else 1)
    elif chance(0.5):
        name = m.view(t.name, pick(-1, size))
    else:
        name = m.op("Reshape", t.name, m.const(np.array(pick([0, -1], [-1, size], [0, size]), "i8")))
    return t.like(name, layout="flat")


def odd_reshape(m, t):
    """Images split or joined; ONNX Runtime takes it, and nothing else may be made of it."""
    size = t.c * t.h * t.w
    if size % 2:
        return None
    return Tensor(m.op("Reshape", t.name, m.const(np.array([-1, size // 2], "i8"))), "flat", size // 2, 1, 1)


def pixels(m, t):
    if not t.pixel():
        return None
    if t.layout == "flat":
        to = pick("nchw", "nhwc")
        axes = [2, 3] if to == "nchw" else [1, 2]
        if chance(0.3):
            return t.like(m.axes_op("Unsqueeze", m.axes_op("Unsqueeze", t.name, axes[:1]), axes[1:]), layout=to)
        return t.like(m.axes_op("Unsqueeze", t.name, axes), layout=to)
    axes = [2, 3] if t.layout == "nchw" else [1, 2]
    if chance(0.3):
        return t.like(m.axes_op("Squeeze", m.axes_op("Squeeze", t.name, axes[1:]), axes[:1]), layout="flat")
    return t.like(m.axes_op("Squeeze", t.name, axes), layout="flat")


def unchanged(m, t):
    return t.like(m.op(pick("Identity", "Dropout"), t.name))


def softmax(m, t):
    axis = {"nchw": 1, "nhwc": 3, "flat": 1}[t.layout]
    axis = pick(axis, -1) if m.opset > 10 else axis
    return t.like(m.op("Softmax", t.name, axis=axis))


BODY = [conv] * 7 + [activation] * 4 + [pool] * 3 + [batch_norm] * 2 + [residual] * 4 + [scaled] * 3 + \
    [picked, picked, lines, padded_pool, average, pad, transpose, transpose, pixels, unchanged, constants, flatten, dense, odd_reshape]
END = [scaled, flatten, flatten, dense, dense, dense, average, softmax, transpose, pad, odd_reshape, pixels, pool]


def start(m, t, kind):
    if kind == "uint8":
        t = t.like(m.op("Cast", t.name, to=TensorProto.FLOAT))
    if chance(0.9):
        t = t.like(commutes(m, "Mul", t.name, m.const(np.float32(1 / 60))))
        if chance(0.5):
            t = t.like(commutes(m, "Add", t.name, m.const(np.array([-2], "f4"))))
    if t.layout == "nhwc":
        t = transpose(m, t)
    return t


def grow(m, t, steps):
    for step in steps:
        before = len(m.nodes)
        made = step(m, t)
        if made and min(made.c, made.h, made.w) > 0:
            m.features.append(t)
            t = made
        elif made:
            del m.nodes[before:]
    return t


def outputs_of(m, t, rest):
    m.outputs, order = [t.name], {t.name: t.layout}
    made = [n.output[0] for n in m.nodes]
    if rest and chance(0.2):
        other = pick(*rest)
        if other.name != t.name and other.name in made:
            m.outputs.insert(pick(0, 1), other.name)
            order[other.name] = other.layout
    return order


def float_model(path):
    m = Model(int(random.integers(7, 18)))
    c, h, w = int(random.integers(1, 6)), int(random.integers(2, 12)), int(random.integers(2, 12))
    layout, kind = pick("nchw", "nchw", "nhwc"), pick("float", "float", "float", "uint8")
    first = start(m, Tensor("x", layout, c, h, w), kind)
    t = grow(m, first, [pick(*BODY) for _ in range(int(random.integers(1, 8)))])
    if chance(0.5):  # the usual end
        t = grow(m, t, [pick(average, flatten), flatten, dense] + ([softmax] if chance(0.4) else []))
    t = grow(m, t, [pick(*END) for _ in range(int(random.integers(0, 2)))])
    if t.name == "x" or not m.nodes:
        t = grow(m, t, [conv])
    order = outputs_of(m, t, m.features)
    batch = pick("N", "N", IMAGES)
    shape = [batch, c, h, w] if layout == "nchw" else [batch, h, w, c]
    last = m.save(path, shape, TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT)
    return dict(height=h, width=w, channels=c, layout=layout, type=kind, output=last, kind="real",
                order=order, step=0, signed=False), (c, h, w)


# ---- Quantized models: the same layers in QOperator and in QDQ form ----

class Quantized(Model):
    def __init__(self, form, code, weight):
        super().__init__()
        self.form, self.code, self.weight = form, code, weight

    def qparams(self, scale):
        zero = int(random.integers(0, 256)) - (128 if self.code == "i1" else 0)
        return np.float32(scale), np.asarray(zero, self.code)

    def names(self, q):
        return [self.const(q[0]), self.const(q[1])]

    def real(self, t):
        return self.op("DequantizeLinear", t.name, *self.names(t.q))

    def made(self, t, name, q, **changes):
        """Codes behind a float operator of the QDQ form."""
        return t.like(self.op("QuantizeLinear", name, *self.names(q)), q=q, **changes)

    def weights(self, shape):
        low, high = (-127, 128) if self.weight == "i1" else (0, 256)
        codes = random.integers(low, high, shape).astype(self.weight)
        many = self.weight == "i1" and chance(0.5)
        scale = random.uniform(0.004, 0.02, shape[0]).astype("f4") if many else np.float32(0.01)
        zero = np.zeros(shape[0] if many else (), "i1") if self.weight == "i1" else \
            np.asarray(int(random.integers(100, 156)), "u1")
        return codes, scale, zero


def q_layer(m, t):
    """A convolution, or behind a flatten a dense layer."""
    flat = t.layout == "flat"
    if flat:
        shape, attributes = (int(random.integers(2, 9)), t.c * t.h * t.w), {"transB": 1}
        out = dict(c=shape[0], h=1, w=1)
    else:
        attributes, h, w = windows(t)
        group = groups_of(t.c)
        shape = (group * int(random.integers(1, 4)), t.c // group, *attributes["kernel_shape"])
        attributes["group"] = group
        out = dict(c=shape[0], h=h, w=w)
        if h < 1 or w < 1:
            return None
    codes, scale, zero = m.weights(shape)
    fan = np.prod(shape[1:])
    q = m.qparams(float(np.max(scale)) * t.q[0] * fan ** 0.5 * 80 * 70 / 40)
    inputs = [m.const(codes), m.const(scale), m.const(zero)]
    bias = random.integers(-3000, 3000, shape[0]).astype("i4") if chance(0.7) else None
    if m.form == "qoperator":
        biases = [] if bias is None else [m.const(bias)]
        if flat:
            name = m.op("QGemm", t.name, *m.names(t.q), *inputs, *(biases or [""]), *m.names(q),
                        domain="com.microsoft", **attributes)
        else:
            name = m.op("QLinearConv", t.name, *m.names(t.q), *inputs, *m.names(q), *biases, **attributes)
        return t.like(name, q=q, **out)
    real = [m.real(t), m.op("DequantizeLinear", *inputs, axis=0)]
    if bias is not None:
        real.append(m.op("DequantizeLinear", m.const(bias), m.const(np.float32(t.q[0]) * scale), axis=0))
    name = m.op("Gemm" if flat else "Conv", *real, **attributes)
    if chance(0.4):
        name = m.op("Relu", name)
    return m.made(t, name, q, **out)


def q_add(m, t):
    fitting = [f for f in m.features if f.q and f.shape() == t.shape() and f.layout != "flat"]
    if not fitting:
        return None
    other = pick(*fitting)
    q = m.qparams(1.2 * max(t.q[0], other.q[0]))
    a, b = (t, other) if chance(0.5) else (other, t)
    if m.form == "qoperator":
        return t.like(m.op("QLinearAdd", a.name, *m.names(a.q), b.name, *m.names(b.q), *m.names(q),
                           domain="com.microsoft"), q=q)
    return m.made(t, m.op("Add", m.real(a), m.real(b)), q)


def q_pool(m, t):
    if t.layout == "flat":
        return None
    kind = pick("MaxPool", "AveragePool", "GlobalAveragePool")
    attributes, h, w = ({}, 1, 1) if kind == "GlobalAveragePool" else windows(t, False)
    if h < 1 or w < 1:
        return None
    if kind == "MaxPool":
        if m.form == "qoperator":
            return t.like(m.op(kind, t.name, **attributes), h=h, w=w)
        return m.made(t, m.op(kind, m.real(t), **attributes), t.q, h=h, w=w)
    if kind == "AveragePool":
        attributes["count_include_pad"] = pick(0, 1)
    q = m.qparams(t.q[0] * pick(1, random.uniform(0.6, 1.2)))
    if m.form == "qoperator":
        return t.like(m.op("QLinear" + kind, t.name, *m.names(t.q), *m.names(q), domain="com.microsoft",
                           **attributes), q=q, h=h, w=w)
    return m.made(t, m.op(kind, m.real(t), **attributes), q, h=h, w=w)


def q_gap(m, t):
    """Some quantizers leave results in real numbers: a 1 x 1 layer whose sum or average alone is quantized."""
    if t.layout == "flat" or m.form == "qoperator":
        return None
    codes, scale, zero = m.weights((t.c, t.c, 1, 1))
    size = float(np.max(scale)) * t.q[0] * t.c ** 0.5 * 80 * 70 / 40
    name = m.op("Conv", m.real(t), m.op("DequantizeLinear", m.const(codes), m.const(scale), m.const(zero), axis=0))
    if chance(0.5):
        name = m.op("Relu", name)
    if chance(0.5):
        return m.made(t, commutes(m, "Add", name, m.real(t)), m.qparams(size + t.q[0]))
    name = m.op(pick("AveragePool", "MaxPool"), name, kernel_shape=[min(2, t.h), min(2, t.w)])
    return m.made(t, name, m.qparams(size), h=t.h - min(2, t.h) + 1, w=t.w - min(2, t.w) + 1)


def q_flatten(m, t):
    return flatten(m, t) if m.form == "qoperator" else m.made(t, flatten(m, t.like(m.real(t))).name, t.q, layout="flat")


def quantized_model(path, form):
    code, weight = pick(("u1", "u1"), ("u1", "i1"), ("i1", "i1"))
    m = Quantized(form, code, weight)
    c, h, w = int(random.integers(1, 6)), int(random.integers(2, 12)), int(random.integers(2, 12))
    q = np.float32(1), np.asarray(0 if code == "u1" else -128, code)
    t = Tensor(m.op("QuantizeLinear", "x", *m.names(q)), "nchw", c, h, w, q)
    t = grow(m, t, [pick(q_layer, q_pool)] + [pick(q_layer, q_layer, q_layer, q_add, q_add, q_pool, q_gap)
                                              for _ in range(int(random.integers(1, 6)))])
    if chance(0.5):
        t = grow(m, t, [q_flatten, q_layer])
    elif chance(0.2):
        t = grow(m, t, [q_flatten])
    last = t.like(m.real(t))
    m.outputs = [last.name]
    name = m.save(path, [pick("N", IMAGES), c, h, w], TensorProto.FLOAT)
    return dict(height=h, width=w, channels=c, layout="nchw", type="float", output=name, order={name: t.layout},
                kind="codes" if form == "qoperator" else "qdq", step=float(t.q[0]), signed=code == "i1"), (c, h, w)


def main():
    global random
    directory, count, seed = sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or [1])[0])
    models = []
    for i in range(count):
        random = np.random.default_rng([seed, i])
        path = f"{directory}/{i}.onnx"
        kind = i % 4
        made, (c, h, w) = float_model(path) if kind < 2 else quantized_model(path, ["qoperator", "qdq"][kind - 2])
        random.integers(0, 256, (IMAGES, h, w, c)).astype("u1").tofile(f"{directory}/{i}.u8")
        models.append(dict(name=str(i), images=IMAGES, **made))
    with open(f"{directory}/models.json", "w") as file:
        json.dump(models, file)


main()
