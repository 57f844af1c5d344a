"""Quantizes a network in Python, sees what that did, and follows one number through a layer.

    pip install ./tools/python && make build/shapes10-data/test_batch.bin
    python3 examples/python/quantize.py [SCHEME [MODEL DATA [OUT]]]

MODEL is a .safetensors file, or one of Keras or ONNX where the tool ptq is installed; DATA a folder
in CIFAR-10's binary form; OUT gets the quantized model. Without arguments: this project's network
for drawn shapes, and such pictures. Notebooks and editors take the cells ("# %%") as they are.
"""

# %% What there is: a float network, images to calibrate on, others to measure with
import sys
import time

import numpy as np

import ptq

DEFAULTS = ["best", "examples/models/resnet8-shapes10.safetensors", "build/shapes10-data"]


def load(model_path, data_path):
    model = ptq.Model.load(model_path)
    print(model)
    return model, ptq.cifar10(data_path, "train"), ptq.cifar10(data_path, "test")


# %% Quantize on a thousand images, as many of every class as possible
def quantize(model, train, scheme):
    chosen = ptq.sample(train.labels, min(1000, len(train.labels)))
    start = time.perf_counter()
    small = ptq.quantize(model, train.images[chosen], scheme)
    print("%s\n%s, in %.1f s" % (small, small.metadata["scheme"], time.perf_counter() - start))
    return small


# %% What that did to the accuracy, and to which classes, on images that were not calibrated on
def compare(model, small, test):
    result = small.evaluate(test.images, test.labels, baseline=model)
    both = result.comparison
    for name, right in (("float", both.baseline_correct), ("integers", both.correct)):
        print("%-9s %d of %d right, %.2f %%" % (name, right, both.total, 100 * right / both.total))
    print(
        "change    %+.2f points, 95 %% interval %+.2f to %+.2f" % (both.delta_pp, *both.interval_pp)
    )
    print("same answer on %.2f %%" % (100 * both.agreement))
    before = model.run(test.images).argmax(1)
    for c, name in enumerate(test.class_names):
        mine = test.labels == c
        change = np.sum(result.predictions[mine] == c) - np.sum(before[mine] == c)
        if change:
            print("%-9s %+d of %d" % (name, change, mine.sum()))


# %% How far each layer is from float for one picture, as signal to quantization noise
def compare_layers(model, small, image):
    real, coded = model.activations(image), small.activations(image)
    for name in small.tensors:
        if name in real and not np.array_equal(real[name], coded[name]):
            noise = np.mean((real[name] - coded[name]) ** 2)
            print("%-18s %5.1f dB" % (name, 10 * np.log10(np.mean(real[name] ** 2) / noise)))


# %% One number of the first convolution, from its window to its code
def explain(model, small, image, node="conv1", row=16, column=16, channel=0):
    why = small.explain(image, node, row, column, channel)
    print(
        "\n%s at row %d, column %d, channel %d: a window of %s codes"
        % (node, row, column, channel, " x ".join(map(str, why.inputs.shape)))
    )
    print("inputs and weights of its first channel, less their zero points:")
    print(np.hstack([why.inputs[0], why.weights[0]]))
    assert why.accumulator == why.bias + (why.inputs * why.weights).sum()
    print("accumulator %d, times %.6g: %.6g" % (why.accumulator, why.multiplier, why.scaled))
    print("code %s stands for %.6g" % (why.code, why.value))
    print("float has %.6g" % model.activations(image, [node])[node][row, column, channel])


def main(arguments):
    scheme, model_path, data_path = (arguments + DEFAULTS[len(arguments) :])[:3]
    model, train, test = load(model_path, data_path)
    small = quantize(model, train, scheme)
    compare(model, small, test)
    compare_layers(model, small, test.images[0])
    explain(model, small, test.images[0])
    if len(arguments) == 4:
        small.save(arguments[3])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, TypeError, ptq.Error) as error:
        sys.exit("quantize.py: %s" % error)
