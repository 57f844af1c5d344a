"""ptq.h for Python: quantize a trained convolutional network, and see what that did to it.

    import ptq

    train, labels, _ = ptq.cifar10("cifar-10-batches-bin", "train")
    model = ptq.Model.load("resnet8.h5")
    small = ptq.quantize(model, train[ptq.sample(labels, 1000)])
    small.save("int8.safetensors")

Images are numpy arrays, N x H x W x C, channels last. Every failure of the library is a
`ptq.Error` with its sentence; arrays of another shape or type are a ValueError or a TypeError.
"""

import os as _os

from ptq._images import Cifar10, cifar10, sample
from ptq._library import Error, lib as _lib, text_of as _text_of
from ptq._model import Model
from ptq._quantize import PRESETS, quantize
from ptq._results import Addition, Comparison, Evaluation, Explanation

__version__: str = _text_of(_lib.ptq_version())


def get_include() -> str:
    """The folder of the ptq.h that this package was built from, for programs in C."""
    return _os.path.join(_os.path.dirname(_os.path.abspath(__file__)), "c")


__all__ = [
    "Addition",
    "Cifar10",
    "Comparison",
    "Error",
    "Evaluation",
    "Explanation",
    "Model",
    "PRESETS",
    "cifar10",
    "get_include",
    "quantize",
    "sample",
]
