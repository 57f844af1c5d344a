"""Classifies the images of a CIFAR-10 file, or of a numpy array, with a float and an integer model.

    make lib
    python3 examples/python/classify.py [IMAGES.bin|IMAGES.npy FLOATMODEL INT8MODEL]

IMAGES.npy holds bytes, N x 32 x 32 x 3; it has no labels. Without arguments: the pictures that
"make" draws and the models of this project.
"""

import sys
import time

import numpy as np

import ptq

DEFAULTS = (
    "build/shapes10-data/test_batch.bin",
    "examples/models/resnet8-shapes10.safetensors",
    "build/models/resnet8-shapes10-int8.safetensors",
)


def read_cifar10(path):
    """Images, N x 32 x 32 x 3, and labels of a file in CIFAR-10's binary form."""
    records = np.fromfile(path, dtype=np.uint8)
    if len(records) % 3073:
        raise ValueError("%s is not made of records of 3,073 bytes" % path)
    records = records.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def classify(path, images):
    """Logits of all images. Model, plan and session are freed at the end of the block."""
    with ptq.Model(path) as model, ptq.Plan(model) as plan, ptq.Session(plan) as session:
        start = time.perf_counter()
        logits = session.run(images)
        micro = 1e6 * (time.perf_counter() - start) / max(len(images), 1)
        print("%-52s %4.0f us an image, %6d bytes of activations" % (path, micro, plan.arena_bytes))
    return logits


def main():
    if len(sys.argv) not in (1, 4):
        sys.exit(__doc__.strip())
    path, float_model, integer_model = sys.argv[1:] or DEFAULTS
    if path.endswith(".npy"):
        images, labels = np.load(path), None
    else:
        images, labels = read_cifar10(path)
    if not len(images):
        raise ValueError("%s holds no images" % path)
    print("ptq.h %s, %d images\n" % (ptq.version, len(images)))
    real = classify(float_model, images)
    integer = classify(integer_model, images)
    same = np.mean(real.argmax(1) == integer.argmax(1))
    with np.errstate(divide="ignore"):
        noise = 10 * np.log10(np.mean(real**2) / np.mean((real - integer) ** 2))
    print("\nsame class on %.2f %% of the images" % (100 * same))
    print("logits: signal to quantization noise %.1f dB" % noise)
    if labels is not None:
        for name, logits in (("float", real), ("integers", integer)):
            right = int(np.sum(logits.argmax(1) == labels))
            share = 100 * right / len(labels)
            print("%-8s %d of %d right, %.2f %%" % (name, right, len(labels), share))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError, ptq.Error) as error:
        sys.exit("classify.py: %s" % error)
