"""ptq.h from Python: ctypes and numpy on the shared library that "make lib" builds.

Who owns what: each object here owns one of the library's and frees it with close(), at the end of
a "with" block, or at the latest when Python drops the object. An object keeps those that it was
made from alive, as the library asks; who calls close() begins with what was made last. Pixels are
read where numpy has them and results are written into arrays that numpy owns: nothing of the
library's memory is ever seen from Python.
"""

import ctypes
import os

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARY = os.environ.get("PTQ_LIBRARY", os.path.join(HERE, "..", "..", "build", "libptq.so"))


class Error(Exception):
    """A failure, with the library's sentence about it and the name of its status."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class _Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("text", ctypes.c_char * 320)]


class _PlanInfo(ctypes.Structure):
    _fields_ = [("model", ctypes.c_void_p)]
    _fields_ += [(name, ctypes.c_int) for name in ("isa", "logits", "classes")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("pixels", "arena_bytes")]


def _load():
    if not os.path.exists(LIBRARY):
        raise ImportError("%s is missing; 'make lib' builds it" % os.path.normpath(LIBRARY))
    lib = ctypes.CDLL(LIBRARY)
    pointer, string, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    err = ctypes.POINTER(_Error)
    out = ctypes.POINTER(pointer)
    # As in ptq.h; a NULL for options means the defaults.
    signatures = {
        "ptq_model_load": (ctypes.c_int, [string, pointer, out, err]),
        "ptq_fuse": (ctypes.c_int, [pointer, out, pointer, err]),
        "ptq_plan_create": (ctypes.c_int, [pointer, pointer, out, err]),
        "ptq_session_create": (ctypes.c_int, [pointer, pointer, out, err]),
        "ptq_run": (ctypes.c_int, [pointer, pointer, size, pointer, pointer, err]),
        "ptq_plan_get_info": (ctypes.POINTER(_PlanInfo), [pointer]),
        "ptq_model_free": (None, [pointer]),
        "ptq_plan_free": (None, [pointer]),
        "ptq_session_free": (None, [pointer]),
        "ptq_name": (string, [ctypes.c_int, ctypes.c_int]),
        "ptq_version": (string, []),
    }
    for name, (result, arguments) in signatures.items():
        getattr(lib, name).restype = result
        getattr(lib, name).argtypes = arguments
    return lib


_lib = _load()
version = _lib.ptq_version().decode()


def _call(function, *arguments):
    """Calls a function whose last parameter is the error, and raises that."""
    err = _Error()
    if function(*arguments, ctypes.byref(err)):
        raise Error(_lib.ptq_name(0, err.status).decode(), err.text.decode())


class _Handle:
    """One object of the library. `keeps` is what it was made from."""

    def __init__(self, release, keeps=()):
        self.pointer = ctypes.c_void_p()
        self._release = release
        self._keeps = keeps

    def close(self):
        if self.pointer:
            self._release(self.pointer)
            self.pointer = ctypes.c_void_p()
        self._keeps = ()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __del__(self):
        self.close()


class Model(_Handle):
    """A model file, float or quantized; batch norm and additions are fused."""

    def __init__(self, path):
        super().__init__(_lib.ptq_model_free)
        loaded = _Handle(_lib.ptq_model_free)
        with loaded:
            _call(_lib.ptq_model_load, os.fsencode(path), None, ctypes.byref(loaded.pointer))
            _call(_lib.ptq_fuse, loaded.pointer, ctypes.byref(self.pointer), None)


class Plan(_Handle):
    """A model made ready for this processor. Threads may share it."""

    def __init__(self, model):
        super().__init__(_lib.ptq_plan_free, keeps=(model,))
        _call(_lib.ptq_plan_create, model.pointer, None, ctypes.byref(self.pointer))
        info = _lib.ptq_plan_get_info(self.pointer).contents
        self.classes, self.pixels = info.classes, info.pixels
        self.arena_bytes = info.arena_bytes


class Session(_Handle):
    """Memory to run a plan in; one thread at a time."""

    def __init__(self, plan):
        super().__init__(_lib.ptq_session_free, keeps=(plan,))
        self.plan = plan
        _call(_lib.ptq_session_create, plan.pointer, None, ctypes.byref(self.pointer))

    def run(self, images):
        """Logits, N x classes, of images N x height x width x channels, bytes 0..255."""
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise TypeError("images must be uint8, 0..255, not %s" % images.dtype)
        images = np.ascontiguousarray(images)  # copies only what is not contiguous
        count = len(images)
        if images.size != count * self.plan.pixels:
            raise ValueError("images of %s; one has %d bytes" % (images.shape, self.plan.pixels))
        logits = np.empty((count, self.plan.classes), dtype=np.float32)
        _call(_lib.ptq_run, self.pointer, images.ctypes.data, count, logits.ctypes.data, None)
        return logits


def read_cifar10(path):
    """Images, N x 32 x 32 x 3, and labels of a file in CIFAR-10's binary form."""
    records = np.fromfile(path, dtype=np.uint8)
    if len(records) % 3073:
        raise ValueError("%s is not made of records of 3,073 bytes" % path)
    records = records.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]
