"""Writes small Keras models, as Keras 2 and Keras 3 write them, and what they compute: each layer
written again with NumPy. Needs h5py.

    make_keras.py models DIRECTORY COUNT SEED   NAME.h5 or NAME.keras and NAME.f32, the logits of
                                                images.bin: models of every layer, and COUNT random
                                                ones
    make_keras.py compare LIMIT OURS...         OURS.out against OURS.f32: exit status 0 if no two
                                                are further apart than LIMIT times the largest
    make_keras.py refused DIRECTORY             NAME.h5 or NAME.keras, and NAME.words, what is to be
                                                said of it; square.h5 and row.keras, which are not
                                                refused
"""
import io
import json
import re
import sys
import zipfile

import h5py
import numpy as np

IMAGES = 2
random = np.random.default_rng(1)


def chance(share):
    return random.random() < share


def pick(*choices):
    return choices[int(random.integers(len(choices)))]


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


# ---- Layers on N x H x W x C ----


def window(x, kernel, stride, padding, value):
    """All windows, N x H' x W' x KH x KW x C; 'same' adds `value`, more of it at the end."""
    pads = [(0, 0)]
    for axis in range(2):
        size, k, s = x.shape[axis + 1], kernel[axis], stride[axis]
        extra = max((-(-size // s) - 1) * s + k - size, 0) if padding == "same" else 0
        pads.append((extra // 2, extra - extra // 2))
    x = np.pad(x, pads + [(0, 0)], constant_values=value)
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, (1, 2))
    return views[:, ::stride[0], ::stride[1]].transpose(0, 1, 2, 4, 5, 3)


def activate(x, name):
    if name in ("relu", "relu6"):
        return np.clip(x, 0, 6 if name == "relu6" else None)
    return x


def conv(x, config, weights):
    w, groups = weights["kernel"].astype(float), config.get("groups", 1)
    taps = window(x, pair(config["kernel_size"]), pair(config["strides"]), config["padding"], 0)
    deep, out = w.shape[2], w.shape[3] // groups
    parts = [np.einsum("nyxuvi,uvio->nyxo", taps[..., g * deep:(g + 1) * deep],
                       w[..., g * out:(g + 1) * out]) for g in range(groups)]
    return activate(np.concatenate(parts, -1) + weights.get("bias", 0), config.get("activation"))


def depthwise(x, config, weights):
    taps = window(x, pair(config["kernel_size"]), pair(config["strides"]), config["padding"], 0)
    y = np.einsum("nyxuvc,uvcm->nyxcm", taps, weights["depthwise_kernel"].astype(float))
    return y.reshape(*y.shape[:3], -1)


def separable(x, config, weights):
    y = depthwise(x, config, weights)
    y = np.einsum("nyxi,io->nyxo", y, weights["pointwise_kernel"][0, 0].astype(float))
    return activate(y + weights.get("bias", 0), config.get("activation"))


def norm(x, config, weights):
    y = (x - weights["moving_mean"]) / np.sqrt(weights["moving_variance"] + config["epsilon"])
    return y * weights.get("gamma", 1) + weights.get("beta", 0)


def dense(x, config, weights):
    return activate(x @ weights["kernel"].astype(float) + weights.get("bias", 0),
                    config.get("activation"))


def average(x, config):
    kernel, stride = pair(config["pool_size"]), pair(config["strides"] or config["pool_size"])
    counted = window(np.ones_like(x), kernel, stride, config["padding"], 0).sum((3, 4))
    return window(x, kernel, stride, config["padding"], 0).sum((3, 4)) / counted


def maximum(x, config):
    kernel, stride = pair(config["pool_size"]), pair(config["strides"] or config["pool_size"])
    return window(x, kernel, stride, config["padding"], -np.inf).max((3, 4))


def pad(x, config):
    p = config["padding"]
    rows, columns = (p, p) if isinstance(p, int) else p
    return np.pad(x, [(0, 0), pair(rows), pair(columns), (0, 0)])


def normalize(x, config, weights):
    mean = weights.get("mean", config.get("mean"))
    deviation = np.sqrt(weights.get("variance", config.get("variance")))
    mean, deviation = np.array(mean, float), np.array(deviation, float)
    return x * deviation + mean if config["invert"] else (x - mean) / deviation


def pooled(x, config, how):
    return how(x, axis=(1, 2), keepdims=config["keepdims"])


COMPUTE = {
    "Activation": lambda x, c, w: activate(x[0], c["activation"]),
    "Add": lambda x, c, w: sum(x[1:], x[0]),
    "Concatenate": lambda x, c, w: np.concatenate(x, -1),
    "AveragePooling2D": lambda x, c, w: average(x[0], c),
    "BatchNormalization": lambda x, c, w: norm(x[0], c, w),
    "Conv2D": lambda x, c, w: conv(x[0], c, w),
    "Dense": lambda x, c, w: dense(x[0], c, w),
    "DepthwiseConv2D": lambda x, c, w: activate(depthwise(x[0], c, w) + w.get("bias", 0),
                                                c.get("activation")),
    "Dropout": lambda x, c, w: x[0],
    "Flatten": lambda x, c, w: x[0].reshape(len(x[0]), -1),
    "GlobalAveragePooling2D": lambda x, c, w: pooled(x[0], c, np.mean),
    "GlobalMaxPooling2D": lambda x, c, w: pooled(x[0], c, np.max),
    "MaxPooling2D": lambda x, c, w: maximum(x[0], c),
    "Normalization": lambda x, c, w: normalize(x[0], c, w),
    "RandomFlip": lambda x, c, w: x[0],
    "ReLU": lambda x, c, w: np.clip(x[0], 0, c["max_value"]),
    "Rescaling": lambda x, c, w: x[0] * np.array(c["scale"]) + np.array(c["offset"]),
    "Reshape": lambda x, c, w: x[0].reshape(len(x[0]), *c["target_shape"]),
    "SeparableConv2D": lambda x, c, w: separable(x[0], c, w),
    "Softmax": lambda x, c, w: x[0],  # logits are compared
    "TFOpLambda": lambda x, c, w: x[0] + x[1],
    "ZeroPadding2D": lambda x, c, w: pad(x[0], c),
}


# ---- Models ----


def snake(name):
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


class Layer:
    def __init__(self, kind, name, config, inputs, weights):
        self.kind, self.name, self.config, self.inputs = kind, name, config, inputs
        self.weights, self.kwargs, self.inner = weights, {}, None
        self.again = []  # inputs of further calls


class Model:
    """Layers, and what they make of the images so far; a tensor is the name of its layer, with
    "#1" behind it where the layer is called a second time."""

    def __init__(self, images, name="model"):
        self.name, self.layers, self.value = name, [], {"input_1": images}
        self.kinds = {}

    def weight(self, *shape):
        fan = int(np.prod(shape[:-1])) if len(shape) > 1 else 4
        return random.normal(0, 1 / np.sqrt(fan), shape).astype(np.float32)

    def weights_of(self, kind, config, x):
        made = {}
        c = x.shape[-1]
        if kind == "Conv2D":
            made["kernel"] = self.weight(*pair(config["kernel_size"]),
                                         c // config.get("groups", 1), config["filters"])
        if kind in ("DepthwiseConv2D", "SeparableConv2D"):
            made["depthwise_kernel"] = self.weight(*pair(config["kernel_size"]), c,
                                                   config["depth_multiplier"])
        if kind == "SeparableConv2D":
            made["pointwise_kernel"] = self.weight(1, 1, c * config["depth_multiplier"],
                                                   config["filters"])
        if kind == "Dense":
            made["kernel"] = self.weight(c, config["units"])
        if config.get("use_bias"):
            out = config.get("filters", config.get("units", c * config.get("depth_multiplier", 1)))
            made["bias"] = self.weight(out)
        if kind == "BatchNormalization":
            names = ["gamma"] * config["scale"] + ["beta"] * config["center"]
            for name in names + ["moving_mean"]:
                made[name] = self.weight(c) + np.float32(name == "gamma")
            made["moving_variance"] = random.uniform(0.5, 2, c).astype(np.float32)
        if kind == "Normalization" and config["mean"] is None:
            made["mean"] = random.uniform(90, 140, c).astype(np.float32)
            made["variance"] = random.uniform(2000, 5000, c).astype(np.float32)
            made["count"] = np.array(7, np.int64)
        return made

    def add(self, kind, inputs, name=None, **config):
        inputs = [inputs] if isinstance(inputs, str) else inputs
        number = self.kinds[kind] = self.kinds.get(kind, -1) + 1
        name = name or snake(kind) + (f"_{number}" if number else "")
        config["name"] = name
        x = [self.value[i] for i in inputs]
        layer = Layer(kind, name, config, inputs, self.weights_of(kind, config, x[0]))
        self.value[name] = COMPUTE[kind](x, config, layer.weights)
        self.layers.append(layer)
        return name

    def call_again(self, name, input):
        layer = next(layer for layer in self.layers if layer.name == name)
        layer.again.append(input)
        made = f"{name}#{len(layer.again)}"
        self.value[made] = COMPUTE[layer.kind]([self.value[input]], layer.config, layer.weights)
        return made

    def nest(self, inner, input):
        """A model as a layer; its images must be the input's value."""
        layer = Layer("Functional", inner.name, None, [input], {})
        layer.inner = inner
        self.value[inner.name] = inner.value[inner.layers[-1].name]
        self.layers.append(layer)
        return inner.name

    # What layers have when nothing is said.

    def conv(self, x, filters, kernel=3, **more):
        return self.add("Conv2D", x, **{**dict(filters=filters, kernel_size=pair(kernel),
                                               strides=(1, 1), padding="same", groups=1,
                                               dilation_rate=(1, 1), use_bias=True,
                                               activation="linear", data_format="channels_last"),
                                        **more})

    def deep(self, x, kind="DepthwiseConv2D", kernel=3, **more):
        return self.add(kind, x, **{**dict(kernel_size=pair(kernel), strides=(1, 1),
                                           padding="same", depth_multiplier=1, use_bias=True,
                                           activation="linear", dilation_rate=(1, 1)), **more})

    def norm(self, x, **more):
        return self.add("BatchNormalization", x, **{**dict(axis=[3], epsilon=1e-3, center=True,
                                                           scale=True), **more})

    def pool(self, x, kind="MaxPooling2D", size=2, **more):
        return self.add(kind, x, **{**dict(pool_size=pair(size), strides=pair(size),
                                           padding="valid"), **more})

    def dense(self, x, units, **more):
        return self.add("Dense", x, **{**dict(units=units, use_bias=True, activation="linear"),
                                       **more})

    def everywhere(self, kind, x, keepdims=False):
        return self.add(kind, x, keepdims=keepdims)


# ---- Files ----


def history(tensor):
    name, _, call = tensor.partition("#")
    return [name, int(call or 0), 0]


def inbound(layer, keras, shapes):
    made = [one_call(layer, layer.inputs, keras, shapes)]
    return made + [one_call(layer, [more], keras, shapes) for more in layer.again]


def one_call(layer, inputs, keras, shapes):
    if layer.kind == "TFOpLambda":
        return [*history(inputs[0]), {"y": history(inputs[1]), "name": None}]
    if keras == 2:
        return [[*history(i), layer.kwargs] for i in inputs]
    made = [{"class_name": "__keras_tensor__",
             "config": {"shape": shapes[i], "dtype": "float32", "keras_history": history(i)}}
            for i in inputs]
    return {"args": [made] if layer.kind in ("Add", "Concatenate") else made, "kwargs": layer.kwargs}


def model_json(model, keras, sequential):
    shapes = {name: [None, *value.shape[1:]] for name, value in model.value.items()}
    key = "batch_input_shape" if keras == 2 else "batch_shape"
    layers = [{"class_name": "InputLayer", "name": "input_1", "inbound_nodes": [],
               "config": {"name": "input_1", key: shapes["input_1"], "dtype": "float32"}}]
    for layer in model.layers:
        made = {"class_name": layer.kind, "config": layer.config, "name": layer.name,
                "inbound_nodes": inbound(layer, keras, shapes)}
        if layer.inner:
            made["config"] = model_json(layer.inner, keras, False)["config"]
        layers.append(made)
    if sequential:
        for layer in layers:
            del layer["inbound_nodes"], layer["name"]
        if keras == 1:  # no InputLayer, and no object around the layers
            layers[1]["config"]["batch_input_shape"] = shapes["input_1"]
            return {"class_name": "Sequential", "config": layers[1:]}
        return {"class_name": "Sequential", "config": {"name": model.name, "layers": layers}}
    last = model.layers[-1].name
    output = [last, int(keras == 3 and model.layers[-1].inner is not None), 0]
    return {"class_name": "Functional",
            "config": {"name": model.name, "layers": layers,
                       "input_layers": [["input_1", 0, 0]],
                       "output_layers": [output] if keras == 2 else output}}


def named_weights(group, model, keras):
    for layer in model.layers:
        if layer.inner:
            named_weights(group, layer.inner, keras)
        for name, value in layer.weights.items():
            group[f"{layer.name}/{name}" + (":0" if keras == 2 else "")] = value


def write_h5(path, model, keras, sequential=False):
    with h5py.File(path, "w") as file:
        text = json.dumps(model_json(model, keras, sequential))
        file.attrs["model_config"] = text if keras == 3 else np.bytes_(text.encode())
        for layer in model.layers:
            group = file.create_group(f"model_weights/{layer.name}")
            single = Model(None)
            single.layers = [layer]
            named_weights(group, single, keras)


def numbered_weights(file, prefix, model, word):
    seen = {}
    for layer in model.layers:
        number = seen[layer.kind] = seen.get(layer.kind, -1) + 1
        if word[0] == "_":  # layers with weights were counted twice
            number *= 2
        group = f"{prefix}{word}{snake(layer.kind)}" + (f"_{number}" if number else "")
        file.create_group(group + "/vars")
        for i, value in enumerate(layer.weights.values()):
            file[f"{group}/vars/{i}"] = value
        if layer.inner:
            numbered_weights(file, group + word[-1], layer.inner, word)


def write_keras(path, model, keras, sequential=False, word="layers/",
                method=zipfile.ZIP_STORED):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        numbered_weights(file, "", model, word)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("config.json", json.dumps(model_json(model, keras, sequential)))
        archive.writestr("model.weights.h5", weights.getvalue())


# ---- Models of every layer ----


def build_sequential(m):
    x = m.add("Rescaling", "input_1", scale=1 / 127.5, offset=-1)
    x = m.conv(x, 6, padding="valid", activation="relu")
    x = m.pool(x)
    x = m.conv(x, 8, (3, 1), strides=(2, 1), use_bias=False, activation="relu6")
    x = m.pool(x, "AveragePooling2D", (2, 3), strides=None)
    x = m.add("Flatten", x)
    x = m.add("Dropout", x, rate=0.5)
    x = m.dense(x, 12, activation="relu")
    return m.dense(x, 5, activation="softmax")


def build_residual(m):
    """The way of ResNet50: padding in layers of its own, sums, projections."""
    x = m.add("Normalization", "input_1", axis=[-1], mean=None, variance=None, invert=False)
    x = m.add("ZeroPadding2D", x, padding=((3, 3), (3, 3)))
    x = m.norm(m.conv(x, 8, 7, strides=(2, 2), padding="valid"), scale=False)
    x = m.add("Activation", x, activation="relu")
    x = m.add("ZeroPadding2D", x, padding=1)
    x = m.pool(x, size=3, strides=(2, 2))
    y = m.norm(m.conv(x, 8, 1, use_bias=False), center=False, scale=False)
    y = m.add("ReLU", y, max_value=None, negative_slope=0.0, threshold=0.0)
    y = m.norm(m.conv(y, 12, 3), center=False, epsilon=1e-5)
    x = m.add("Add", [m.conv(x, 12, 1), y, m.deep(y)])
    x = m.add("Concatenate", [x, y, x], axis=-1)
    x = m.everywhere("GlobalAveragePooling2D", m.add("Activation", x, activation="relu"))
    return m.add("Softmax", m.dense(x, 7), axis=-1)


def build_mobile(m):
    """The way of MobileNet: corners padded, depthwise, the end as a convolution."""
    x = m.add("RandomFlip", "input_1", mode="horizontal")
    x = m.add("Normalization", x, axis=-1, mean=[1.5, 0.5, 2.0], variance=[4.0, 9.0, 1.0],
              invert=True)
    x = m.add("Rescaling", x, scale=[0.01, 0.02, 0.03], offset=[0.5, -1, 0])
    x = m.add("ZeroPadding2D", x, padding=((0, 1), (0, 1)))
    x = m.conv(x, 6, strides=(2, 2), padding="valid", use_bias=False)
    x = m.add("ReLU", m.norm(x), max_value=6.0, negative_slope=0.0, threshold=0.0)
    x = m.deep(x, depth_multiplier=2, strides=(2, 2), use_bias=False)
    x = m.deep(m.norm(x), "SeparableConv2D", 5, filters=10, depth_multiplier=3, padding="valid",
               activation="relu6")
    x = m.conv(x, 10, groups=2, strides=(2, 2), kernel=(2, 3))
    x = m.everywhere("GlobalMaxPooling2D", x, True)
    x = m.conv(x, 10, 1)
    return m.add("Activation", m.add("Reshape", x, target_shape=[10]), activation="linear")


def build_zeros(m):
    """Zeros that nothing can take in: more than a kernel, in front of sums, norms, pools, rows."""
    x = m.conv("input_1", 4, strides=(2, 2))
    x = m.add("ZeroPadding2D", x, padding=((2, 0), (1, 3)))
    x = m.conv(x, 4, 2, padding="valid")
    x = m.add("ZeroPadding2D", x, padding=(1, 2))
    x = m.conv(x, 5, 3, strides=(2, 2))  # 'same' behind it
    x = m.norm(m.add("ZeroPadding2D", x, padding=((0, 2), (0, 0))))
    x = m.add("ZeroPadding2D", x, padding=1)
    x = m.pool(x, "AveragePooling2D", 3)  # counts the zeros
    x = m.add("ZeroPadding2D", x, padding=((1, 0), (0, 1)))
    x = m.pool(x, "AveragePooling2D", 2, padding="same")
    x = m.add("ZeroPadding2D", x, padding=1)
    x = m.pool(x, "MaxPooling2D", 2)  # some are larger than what is there
    x = m.add("ZeroPadding2D", x, padding=((0, 1), (1, 0)))
    y = m.add("Add", [x, x])
    return m.dense(m.add("Flatten", m.add("ZeroPadding2D", y, padding=1)), 3)


def build_pixelwise(m):
    """Dense on pixels; scaling where it is no longer the input's; shapes there and back."""
    x = m.dense("input_1", 4, activation="relu")
    y = m.add("Rescaling", x, scale=0.25, offset=-3)
    x = m.add("Add", [x, y])
    x = m.add("ZeroPadding2D", x, padding=2)  # the last thing
    return x


def build_shared_input(m):
    """The input is read twice, so its scaling belongs to one branch alone."""
    x = m.conv(m.add("Rescaling", "input_1", scale=0.01, offset=0.1), 4)
    y = m.conv("input_1", 4, 1)
    x = m.add("TFOpLambda", [x, y], function="__operators__.add")  # x + y, as Keras 2 has it
    return m.everywhere("GlobalAveragePooling2D", x)


def build_nested(m):
    x = m.add("Rescaling", "input_1", scale=1 / 64, offset=-2)
    x = m.conv(x, 4)
    inner = Model(m.value[x], "back_bone")
    y = inner.conv("input_1", 4, name="conv2d")  # the name is another one's as well
    y = inner.add("ReLU", inner.norm(y), max_value=None, negative_slope=0, threshold=0)
    inner.pool(y)
    x = m.nest(inner, x)
    x = m.conv(x, 6)
    return m.dense(m.everywhere("GlobalAveragePooling2D", x), 4)


def build_shared(m):
    """One layer at three places, the second of which comes behind a layer that reads the first."""
    x = m.pool(m.conv("input_1", 4, name="first"), size=3)
    y = m.conv(x, 4, name="twice")
    y = m.add("Activation", y, activation="relu", name="between")
    z = m.call_again("twice", y)
    w = m.call_again("twice", z)
    return m.everywhere("GlobalAveragePooling2D", m.add("Add", [w, z, m.call_again("between", x)]))


CASES = [build_sequential, build_residual, build_mobile, build_zeros, build_pixelwise,
         build_shared_input, build_nested, build_shared]


# ---- Random models ----


def random_layer(m, x):
    shape = m.value[x].shape
    size = min(shape[1:3])
    kind = pick("conv", "conv", "deep", "norm", "act", "pool", "pool", "zeros", "separable", "add",
                "dense", "nothing")
    kernel = (int(random.integers(1, min(size, 5) + 1)), int(random.integers(1, min(size, 5) + 1)))
    more = dict(strides=pair(pick(1, 1, 2, 3)), padding=pick("same", "valid"))
    layered = dict(more, use_bias=chance(0.7), activation=pick("linear", "relu", "relu6"))
    if kind == "conv":
        groups = pick(1, 1, shape[3], 2 if shape[3] % 2 == 0 else 1)
        return m.conv(x, groups * pick(1, 2, 5), kernel, groups=groups, **layered)
    if kind == "deep" and shape[3] < 24:
        return m.deep(x, kernel=kernel, depth_multiplier=pick(1, 2), **layered)
    if kind == "separable":
        return m.deep(x, "SeparableConv2D", kernel, filters=pick(3, 8),
                      depth_multiplier=pick(1, 2), **layered)
    if kind == "norm":
        return m.norm(x, scale=chance(0.8), center=chance(0.8), epsilon=pick(1e-3, 1e-5))
    if kind == "act":
        return m.add("Activation", x, activation=pick("relu", "relu6", "linear"))
    if kind == "pool":
        return m.pool(x, pick("MaxPooling2D", "AveragePooling2D"), kernel, **more)
    if kind == "zeros" and size < 40:
        sides = [int(random.integers(0, 4)) for _ in range(4)]
        return m.add("ZeroPadding2D", x, padding=(sides[:2], sides[2:]))
    if kind == "dense":
        return m.dense(x, 6, activation=pick("linear", "relu"))
    if kind == "nothing":
        return m.add("Dropout", x, rate=0.1)
    others = [name for name, value in m.value.items() if value.shape == shape]
    return m.add("Add", [pick(*others), x]) if kind == "add" else x


def build_random(m):
    x = "input_1"
    if chance(0.5):
        x = m.add("Rescaling", x, scale=1 / 255, offset=pick(0, -0.5))
    for _ in range(int(random.integers(2, 9))):
        x = random_layer(m, x)
    x = m.everywhere("GlobalAveragePooling2D", x) if chance(0.5) else m.add("Flatten", x)
    if chance(0.5):
        x = m.dense(x, 6, activation="relu")
    return m.dense(x, 5, activation=pick("linear", "softmax"))


def used(model):
    """Without the layers that nobody reads; whether what is left is a plain chain."""
    needed, kept = {model.layers[-1].name}, []
    for layer in reversed(model.layers):
        if layer.name in needed:
            kept.append(layer)
            needed.update(i.partition("#")[0] for i in layer.inputs + layer.again)
    model.layers = kept[::-1]
    before = ["input_1"] + [layer.name for layer in model.layers]
    return all(layer.inputs == [name] and not layer.again for layer, name in zip(model.layers, before))


def write_any(stem, model, way):
    chain = used(model)
    if way == 0:
        write_h5(stem + ".h5", model, 2, chain)
    elif way == 1:
        write_h5(stem + ".h5", model, 3)
    elif way == 2:
        write_keras(stem + ".keras", model, 3, chain)
    elif way == 3:
        write_keras(stem + ".keras", model, 2, word="_layer_checkpoint_dependencies/")
    elif way == 5:
        write_h5(stem + ".h5", model, 1, True)
    elif way == 4:
        write_keras(stem + ".keras", model, 2, word="layers\\", method=zipfile.ZIP_DEFLATED)


def write_models(directory, count):
    coarse = random.integers(20, 236, (IMAGES, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    pixels = (coarse + random.integers(-20, 20, coarse.shape)).astype(np.uint8)
    with open(f"{directory}/images.bin", "wb") as file:
        for image in pixels:
            file.write(b"\0" + image.transpose(2, 0, 1).tobytes())
    builds = [(build.__name__[6:], build, way) for build in CASES for way in range(5)]
    builds.append(("sequential", build_sequential, 5))
    builds += [(f"random{i}", build_random, i % 5) for i in range(count)]
    for name, build, way in builds:
        model = Model(pixels.astype(float))
        last = build(model)
        stem = f"{directory}/{name}{way}"
        write_any(stem, model, way)
        model.value[last].astype("<f4").tofile(stem + ".f32")


# ---- What is refused ----


def small(change=None):
    """A Functional model as JSON, changed by `change`, and its weights."""
    m = Model(np.zeros((1, 8, 8, 3)))
    x = m.conv("input_1", 4, name="a")
    y = m.norm(m.conv(x, 4, name="b"), name="n")
    z = m.add("ReLU", m.add("Add", [x, y], name="s"), name="r", max_value=None,
              negative_slope=0.0, threshold=0.0)
    z = m.dense(m.everywhere("GlobalAveragePooling2D", z), 3, name="d")
    made = model_json(m, 2, False)
    layers = {layer["config"]["name"]: layer for layer in made["config"]["layers"]}
    if change:
        change(layers, made["config"])
    return m, made


def set_config(layer, **changes):
    return lambda layers, config: layers[layer]["config"].update(changes)


def set_kind(**kinds):
    def change(layers, config):
        for name, kind in kinds.items():
            layers[name]["class_name"] = kind
    return change


def many(layers, config):
    """Everything at once."""
    set_kind(a="Conv2DTranspose", s="Subtract", r="LeakyReLU")(layers, config)
    layers["b"]["config"]["dilation_rate"] = [2, 2]
    layers["d"]["config"]["activation"] = "sigmoid"
    for i in range(4):
        config["layers"].append({"class_name": "Nonsense", "config": {"name": f"x{i}"},
                                 "name": f"x{i}", "inbound_nodes": [[["r", 0, 0, {}]]]})


def circle(layers, config):
    layers["b"]["inbound_nodes"] = [[["n", 0, 0, {}]]]


def reads_nothing(layers, config):
    layers["b"]["inbound_nodes"] = [[["ghost", 0, 0, {}]]]


def two_outputs(layers, config):
    config["output_layers"].append(["r", 0, 0])


def two_inputs(layers, config):
    config["layers"].append({**layers["input_1"], "name": "extra",
                             "config": {**layers["input_1"]["config"], "name": "extra"}})


def training(layers, config):
    layers["n"]["inbound_nodes"][0][0][3]["training"] = True


def renamed(layers, config):
    layers["d"]["name"] = config["output_layers"][0][0] = "e"


REFUSED = {
    "many": (many, "layer 'b' (Conv2D): its dilation_rate is 2x2.*(Subtract): "),
    "many_too": (many, "'r' (LeakyReLU).*activation 'sigmoid'"),
    "many_three": (many, "layers 'x0', 'x1', 'x2' and 1 more (Nonsense)"),
    "transposed": (set_kind(a="Conv2DTranspose"), "'a' (Conv2DTranspose): .*enlarges"),
    "channels_first": (set_config("b", data_format="channels_first"), "'b' (Conv2D): data_format"),
    "bound": (set_config("r", max_value=4.0), "'r' (ReLU): its max_value is 4"),
    "slope": (set_config("r", negative_slope=0.5), "its negative_slope is 0.5"),
    "axis": (set_config("n", axis=[1]), "'n' (BatchNormalization): axis is not the last"),
    "epsilon": (set_config("n", epsilon=None), "epsilon must be"),
    "filters": (set_config("b", filters=0), "filters must be a number of 1 to"),
    "shape": (set_config("b", kernel_size=[5, 3]), "kernel is 3x3x4x4, but 5x3x4x4 was expected"),
    "missing": (renamed, "'e' (Dense): the file holds no kernel"),
    "same": (set_config("a", padding="reflect"), "neither 'same' nor 'valid'"),
    "open_size": (set_config("input_1", batch_input_shape=[None, None, None, 3]),
                  "dimension 1 is not a fixed size"),
    "circle": (circle, "in a circle"),
    "ghost": (reads_nothing, "'b' reads a tensor that no layer makes"),
    "outputs": (two_outputs, "several outputs"),
    "inputs": (two_inputs, "several inputs"),
    "training": (training, "'n' (BatchNormalization): it is called with training=True"),
    "no_layers": (lambda layers, config: config.pop("layers"), "lists no layers"),
}


def without_channel():
    """Images of 28 x 28 as they come from MNIST, without a channel, and in one row."""
    m = Model(np.zeros((1, 28, 28)))
    x = m.add("Flatten", m.add("Rescaling", "input_1", scale=1 / 255, offset=0.0))
    m.dense(m.dense(x, 16, activation="relu"), 10, activation="softmax")
    row = Model(np.zeros((1, 784)))
    x = row.conv(row.add("Reshape", "input_1", target_shape=[28, 28, 1]), 4)
    row.dense(row.add("Flatten", x), 10, activation="softmax")
    return m, row


def write_small(path, weights, config):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config) if isinstance(config, dict) else config
        for layer in weights.layers:
            single = Model(None)
            single.layers = [layer]
            named_weights(file.create_group(f"model_weights/{layer.name}"), single, 2)


def write_archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)


def write_outside(path, weights, config):
    """The weights of a layer lie in another file; those of one are claimed and not there."""
    write_small(path, weights, config)
    with h5py.File(path, "a") as file:
        for name in ("a/a/kernel:0", "b/b/kernel:0"):
            shape = file["model_weights/" + name].shape
            del file["model_weights/" + name]
            outside = [("/dev/zero", 0, h5py.h5f.UNLIMITED)] if name[0] == "a" else None
            file.create_dataset("model_weights/" + name, shape, "f4", external=outside)


def write_refused(directory):
    for name, (change, words) in REFUSED.items():
        write_small(f"{directory}/{name}.h5", *small(change))
        with open(f"{directory}/{name}.words", "w") as file:
            file.write(words)
    square, row = without_channel()
    write_h5(f"{directory}/square.h5", square, 2, True)
    write_keras(f"{directory}/row.keras", row, 3, True)
    weights, config = small()
    write_small(f"{directory}/no_json.h5", weights, "{")
    write_small(f"{directory}/no_model.h5", weights, "[]")
    write_outside(f"{directory}/outside.h5", weights, config)
    write_archive(f"{directory}/no_config.keras", metadata_json="{}")
    write_archive(f"{directory}/no_weights.keras", config_json=json.dumps(config))
    write_archive(f"{directory}/bomb.keras", config_json=b" " * (300 << 20))
    write_archive(f"{directory}/bad_weights.keras", config_json=json.dumps(config),
                  model_weights_h5="not HDF5")
    for name, words in {"no_json": "model_config is not JSON", "no_model": "describes no model",
                        "outside": "'a', 'b' (Conv2D): kernel is not in the file",
                        "no_config": "no config.json in it",
                        "no_weights": "no model.weights.h5 in it", "bomb": "zip bomb",
                        "bad_weights": "model.weights.h5 in it is damaged"}.items():
        with open(f"{directory}/{name}.words", "w") as file:
            file.write(words)


def compare(limit, *stems):
    failures = 0
    for stem in stems:
        a, b = np.fromfile(stem + ".out", "<f4"), np.fromfile(stem + ".f32", "<f4")
        far = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6) if len(a) == len(b) else np.inf
        if not far < float(limit):
            print(f"{stem}: {len(a)} numbers of {len(b)}, {far:g} of the largest apart")
            failures += 1
    return failures or not stems


if __name__ == "__main__":
    if sys.argv[1] == "compare":
        sys.exit(compare(*sys.argv[2:]))
    if sys.argv[1] == "refused":
        sys.exit(write_refused(sys.argv[2]))
    random = np.random.default_rng(int(sys.argv[4]))
    write_models(sys.argv[2], int(sys.argv[3]))
