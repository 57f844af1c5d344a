"""ptq.h from Python: ctypes and numpy on the shared library that "make lib" builds.

Who owns what: each object here owns one of the library's and frees it with close(), at the end of
a "with" block, or at the latest when Python drops the object or ends. An object keeps those that
it was made from alive; who calls close() begins with what was made last. Pixels are read where
numpy has them, and results go into arrays that numpy owns: Python sees no memory of the library.
"""

import contextlib
import ctypes
import os
import re
import weakref

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
    err, out = ctypes.POINTER(_Error), ctypes.POINTER(pointer)
    # As in ptq.h; a NULL for options means the defaults.
    signatures = {
        "ptq_model_load": (ctypes.c_int, [string, pointer, out, err]),
        "ptq_fuse": (ctypes.c_int, [pointer, out, pointer, err]),
        "ptq_plan_create": (ctypes.c_int, [pointer, pointer, out, err]),
        "ptq_session_create": (ctypes.c_int, [pointer, pointer, out, err]),
        "ptq_run": (ctypes.c_int, [pointer, pointer, size, pointer, pointer, err]),
        "ptq_graph_write": (size, [pointer, string, size]),
        "ptq_plan_get_info": (ctypes.POINTER(_PlanInfo), [pointer]),
        "ptq_name": (string, [ctypes.c_int, ctypes.c_int]),
        "ptq_version": (string, []),
    }
    signatures.update({"ptq_%s_free" % o: (None, [pointer]) for o in ("model", "plan", "session")})
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


def _free(release, pointer, keeps):
    """Frees what was made from `keeps`, which may be dropped only then."""
    if pointer:
        release(pointer)
        pointer.value = None


class _Handle(contextlib.AbstractContextManager):
    """One object of the library. `keeps` is what it was made from.

    Where objects die together, as at a script's end, Python calls __del__ in any order, and a model
    would go before its plan. weakref.finalize begins with what was made last."""

    def __init__(self, release, keeps=()):
        self.pointer = ctypes.c_void_p()
        self.close = weakref.finalize(self, _free, release, self.pointer, keeps)

    def _open(self):
        if not self.pointer:
            raise ValueError("this %s is closed" % type(self).__name__)
        return self.pointer

    def __exit__(self, *exception):
        self.close()


class Model(_Handle):
    """A model file, float or quantized; batch norm and additions are fused."""

    def __init__(self, path):
        super().__init__(_lib.ptq_model_free)
        with _Handle(_lib.ptq_model_free) as loaded:
            _call(_lib.ptq_model_load, os.fsencode(path), None, ctypes.byref(loaded.pointer))
            _call(_lib.ptq_fuse, loaded.pointer, ctypes.byref(self.pointer), None)


def _input_shape(model):
    """Height, width and channels of an image, from the graph's text: its input has the first."""
    text = ctypes.create_string_buffer(_lib.ptq_graph_write(model, None, 0) + 1)
    _lib.ptq_graph_write(model, text, len(text))
    found = re.search(rb"^input .*?\bshape=(\d+)x(\d+)x(\d+)", text.value, re.MULTILINE)
    return tuple(int(number) for number in found.groups())


class Plan(_Handle):
    """A model made ready for this processor. Threads may share it."""

    def __init__(self, model):
        super().__init__(_lib.ptq_plan_free, keeps=(model,))
        _call(_lib.ptq_plan_create, model._open(), None, ctypes.byref(self.pointer))
        info = _lib.ptq_plan_get_info(self.pointer).contents
        self.classes, self.arena_bytes = info.classes, info.arena_bytes
        self.shape = _input_shape(info.model)


class Session(_Handle):
    """Memory to run a plan in; one thread at a time."""

    def __init__(self, plan):
        super().__init__(_lib.ptq_session_free, keeps=(plan,))
        self.plan = plan
        _call(_lib.ptq_session_create, plan._open(), None, ctypes.byref(self.pointer))

    def run(self, images):
        """Logits, N x classes, of images N x height x width x channels, bytes 0..255."""
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise TypeError("images must be uint8, 0..255, not %s" % images.dtype)
        if images.ndim != 4 or images.shape[1:] != self.plan.shape:
            wanted = "N x %d x %d x %d, channels last" % self.plan.shape
            raise ValueError("images must be %s; these are %s" % (wanted, images.shape))
        images = np.ascontiguousarray(images)  # copies only what is not contiguous
        logits = np.empty((len(images), self.plan.classes), dtype=np.float32)
        _call(_lib.ptq_run, self._open(), images.ctypes.data, len(images), logits.ctypes.data, None)
        return logits
