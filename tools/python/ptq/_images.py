"""Images as numpy arrays: layouts, data sets, CIFAR-10, sampling."""

from typing import Iterable, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptq._library import call, ffi, lib, make, path_bytes, text_of

Shape = Tuple[int, int, int]
Images = Union[ArrayLike, Iterable[ArrayLike]]


def _fits(got: Sequence[int], wanted: Shape) -> bool:
    """N x 28 x 28 is N x 28 x 28 x 1: dimensions of 1 may be left out or added."""
    return [n for n in got if n != 1] == [n for n in wanted if n != 1]


def _check_type(array: NDArray) -> NDArray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    raise TypeError(
        "images must be uint8 pixels of 0..255, or floats as the model's first layer takes them,"
        " not %s; pixels of another integer type become .astype(np.uint8)" % array.dtype
    )


def _refuse_shape(got: Sequence[int], wanted: Shape) -> None:
    text = "images must be N x %d x %d x %d, channels last" % wanted
    text += "; these are " + (" x ".join(map(str, got)) or "a single number")
    if len(got) >= 3 and tuple(got[-3:]) == (wanted[2], wanted[0], wanted[1]):
        axes = "(0, 2, 3, 1)" if len(got) == 4 else "(1, 2, 0)"
        text += ", channels first: pass images.transpose%s" % axes
    elif tuple(got) == wanted:
        text += ": one image alone is images[np.newaxis]"
    raise ValueError(text)


def as_batch(images: ArrayLike, shape: Shape) -> NDArray:
    """One array of images, N x H x W x C, contiguous, uint8 or float32. Copies only if it must."""
    array = _check_type(np.asarray(images))
    if array.ndim < 2 or not _fits(array.shape[1:], shape):
        _refuse_shape(array.shape, shape)
    return np.ascontiguousarray(array).reshape((len(array),) + shape)


def _part(item, shape: Shape) -> NDArray:
    """What an iterable yields: a batch, or one image."""
    if isinstance(item, (tuple, list)) and any(hasattr(x, "__array__") for x in item):
        raise TypeError(
            "the iterable yields %ss of arrays; pass the images alone, as in (x for x, _ in loader)"
            % type(item).__name__
        )
    array = np.asarray(item)
    return as_batch(array[np.newaxis] if _fits(array.shape, shape) else array, shape)


def collect(images: Images, shape: Shape) -> NDArray:
    """All images of an array, or of an iterable of images or batches, as one array."""
    if hasattr(images, "__array__"):
        return as_batch(np.asarray(images), shape)
    parts = [_part(item, shape) for item in images]  # type: ignore[union-attr]
    if not parts:
        raise ValueError("there are no images: the iterable is empty, or was used up before")
    if len({part.dtype for part in parts}) > 1:
        raise TypeError("some images are uint8 and some are floats; they must be alike")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def as_labels(labels: ArrayLike, count: int) -> NDArray[np.int32]:
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # as Keras's data sets have them
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(
            "labels must be N integers, not %s of the shape %s" % (array.dtype, array.shape)
        )
    if len(array) != count:
        raise ValueError("there are %d images and %d labels" % (count, len(array)))
    return np.ascontiguousarray(array, dtype=np.int32)


class Dataset:
    """A ptq_dataset over arrays, which it keeps alive."""

    def __init__(self, images: NDArray, labels: Optional[NDArray[np.int32]], classes: int):
        self.arrays = images, labels
        self.items = ffi.new("array_items *")
        self.items.item = ffi.cast("char *", images.ctypes.data)
        if labels is not None:
            self.items.label = ffi.cast("int32_t *", labels.ctypes.data)
        self.items.size = images[0].nbytes if len(images) else 0
        self.view = ffi.new("ptq_dataset *")
        self.view.count = len(images)
        self.view.height, self.view.width, self.view.channels = images.shape[1:]
        self.view.classes = classes
        self.view.type = item_type(images)
        lib.array_dataset(self.view, self.items)


def item_type(images: NDArray) -> int:
    return lib.PTQ_TYPE_U8 if images.dtype == np.uint8 else lib.PTQ_TYPE_F32


class Cifar10(NamedTuple):
    """`images` N x 32 x 32 x 3, uint8; `labels` N, int32; the names of the classes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    class_names: Tuple[str, ...]


def cifar10(path, split: str) -> Cifar10:
    """Reads CIFAR-10's binary version, or data in the same form.

    path:  the folder of data_batch_1.bin and test_batch.bin, or one .bin file
    split: "train" or "test"
    """
    splits = {"train": lib.PTQ_SPLIT_TRAIN, "test": lib.PTQ_SPLIT_TEST}
    if split not in splits:
        raise ValueError('split is "train" or "test", not %r' % (split,))
    arguments = path_bytes(path), splits[split], ffi.NULL
    data = make("ptq_cifar10", lib.ptq_cifar10_free, lib.ptq_cifar10_open, *arguments)
    view = lib.ptq_cifar10_dataset(data)
    images = np.empty((view.count, view.height, view.width, view.channels), np.uint8)
    labels = np.empty(view.count, np.int32)
    pointers = ffi.from_buffer("char *", images), ffi.from_buffer("int32_t *", labels)
    call(lib.read_dataset, view, images[0].nbytes, *pointers)
    names = tuple(text_of(view.class_name[i]) for i in range(view.classes))
    return Cifar10(images, labels, names)


def sample(labels: ArrayLike, count: int, seed: int = 42) -> NDArray[np.intp]:
    """Chooses images to calibrate on, as many of every class as possible.

    labels: N integers from 0
    Returns `count` indices, ascending: the same ones as `ptq quantize --samples COUNT --seed SEED`.
    """
    array = as_labels(labels, len(np.asarray(labels)))
    none = np.zeros((len(array), 1, 1, 1), np.uint8)
    if len(array) and array.min() < 0:
        raise ValueError("labels are numbered from 0; one is %d" % array.min())
    data = Dataset(none, array, int(array.max(initial=0)) + 1)
    indices = np.empty(max(count, 0), np.uintp)
    pointer = ffi.cast("size_t *", indices.ctypes.data)
    call(lib.ptq_sample, data.view, max(count, 0), seed, pointer, ffi.NULL)
    return indices.astype(np.intp)
