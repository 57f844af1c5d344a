"""Models: load, run, evaluate, explain, save."""

import os
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ptq._images import Dataset, Images, as_labels, collect, item_type
from ptq._library import Progress, call, ffi, lib, make, path_bytes, text_of, warn_lines
from ptq._library import watched, write_text
from ptq._results import Addition, Comparison, Evaluation, Explanation
from ptq._tool import FOREIGN, import_bytes


class Model:
    """A network, float or quantized, ready to run. `Model.load` and `ptq.quantize` make one.

    Threads may share a model: it does not change, and each call has memory of its own. Python's
    lock is released while the library works.
    """

    def __init__(self, model) -> None:
        """From a ptq_model, for this package alone."""
        self._model = model  # as in its file
        fuse = "ptq_model", lib.ptq_model_free, lib.ptq_fuse, model
        self._fused = make(*fuse, after=(ffi.NULL,))
        self._plan = make("ptq_plan", lib.ptq_plan_free, lib.ptq_plan_create, self._fused, ffi.NULL)
        self._info = lib.ptq_plan_get_info(self._plan)
        self._calibration = None  # of what `quantize` made

    # ---- Files ----

    @classmethod
    def load(cls, path, *options: str) -> "Model":
        """Reads a model file (.safetensors), or what `ptq import` reads: Keras's, ONNX's.

        Files that end in .h5, .hdf5, .keras, .onnx or .tflite are read by the command-line tool,
        which must be on the PATH or be named by PTQ_TOOL; `options` are those of `ptq import`, as
        "--mean", "0.5". What it assumed about the network is a warning.
        """
        name = os.fspath(path)
        if options or name.lower().endswith(FOREIGN):
            return cls.from_bytes(import_bytes(name, *options))
        return cls(_read(lib.ptq_model_load, path_bytes(path)))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Model":
        """From the bytes of a model file."""
        return cls(_read(lib.ptq_model_parse, ffi.from_buffer(data), len(data)))

    def save(self, path) -> None:
        """Writes a model file: `path` holds the old bytes or all the new ones, never a part."""
        call(lib.ptq_model_save, self._model, path_bytes(path))

    def to_bytes(self) -> bytes:
        """What `save` would write."""
        out, size = ffi.new("void **"), ffi.new("size_t *")
        call(lib.ptq_model_write, self._model, out, size)
        try:
            return bytes(ffi.buffer(out[0], size[0]))
        finally:
            lib.ptq_bytes_free(out[0], ffi.NULL)

    def __reduce__(self):
        return Model.from_bytes, (self.to_bytes(),)

    # ---- What it is ----

    @property
    def input_shape(self) -> Tuple[int, int, int]:
        """Height, width, channels of an image."""
        return tuple(self._fused.node[0].shape)  # type: ignore[return-value]

    @property
    def input_dtype(self) -> np.dtype:
        """uint8 where it takes pixels (floats then are preprocessed ones), else float32."""
        pixels = self._info.type == lib.PTQ_TYPE_U8
        return np.dtype(np.uint8 if pixels else np.float32)

    @property
    def classes(self) -> int:
        """How many logits an image gets."""
        return self._info.classes

    @property
    def class_names(self) -> Tuple[str, ...]:
        """The names of the classes; empty if the file has none."""
        text = ffi.new("char[]", lib.PTQ_CLASS_NAME_SIZE)
        found = []
        for i in range(self.classes):
            if not lib.ptq_class_name(self._model, i, text, len(text)):
                return ()
            found.append(text_of(text))
        return tuple(found)

    @property
    def metadata(self) -> Dict[str, str]:
        """The metadata of its file, such as "scheme" and "confirmed" of a quantized model."""
        metas = (self._model.meta[i] for i in range(self._model.metas))
        return {text_of(meta.key): text_of(meta.value) for meta in metas}

    @property
    def graph(self) -> str:
        """The network as text, a line for each node."""
        return write_text(lib.ptq_graph_write, self._model)

    @property
    def tensors(self) -> List[str]:
        """Names of all results, input first, as `activations` and `explain` take them."""
        found: List[str] = []
        for node in (self._fused.node[i] for i in range(self._fused.nodes)):
            found += dict.fromkeys((text_of(node.name), text_of(node.out)))
        return found

    @property
    def parameter_bytes(self) -> int:
        """Weights, biases and scales, as stored."""
        costs = (lib.ptq_node_cost(self._model, i) for i in range(self._model.nodes))
        return sum(cost.param_bytes for cost in costs)

    @property
    def activation_bytes(self) -> int:
        """Memory of the activations while one image runs."""
        return self._info.arena_bytes

    def __repr__(self) -> str:
        coded = any(
            self._fused.node[i].q.type != lib.PTQ_TYPE_F32 for i in range(self._fused.nodes)
        )
        return "<ptq.Model %s: %s, %d classes, %d bytes of parameters>" % (
            "quantized" if coded else "float",
            "%d x %d x %d" % self.input_shape,
            self.classes,
            self.parameter_bytes,
        )

    # ---- Running ----

    def _items(self, images: Images) -> NDArray:
        """Images as one array; refuses pixels that would be taken for preprocessed numbers."""
        items = collect(images, self.input_shape)
        channels = min(self.input_shape[2], len(self._fused.mean))
        same = all(self._fused.mean[c] == 0 and self._fused.std[c] == 1 for c in range(channels))
        if items.dtype != np.uint8 and self.input_dtype == np.uint8 and not same and items.size:
            if (
                items.min() >= 0
                and 1 < items.max() <= 255
                and np.array_equal(items, np.rint(items))
            ):
                raise TypeError(
                    "these floats are whole numbers from 0 to 255, as pixels are; the model"
                    " preprocesses pixels itself: pass images.astype(np.uint8)"
                )
        return items

    def _session(self, keep: bool):
        options = ffi.new("ptq_session_options *", {"keep": keep})
        arguments = lib.ptq_session_free, lib.ptq_session_create, self._plan, options
        return make("ptq_session", *arguments)

    def _run(self, session, images: NDArray, probabilities: bool = False) -> NDArray[np.float32]:
        out = np.empty((len(images), self.classes), np.float32)
        results = ffi.new("ptq_results *")
        pointer = ffi.from_buffer("float *", out) if out.size else ffi.NULL
        setattr(results, "probabilities" if probabilities else "logits", pointer)
        items = ffi.cast("void *", images.ctypes.data)
        call(lib.ptq_run_items, session, item_type(images), items, len(images), results)
        return out

    def run(self, images: ArrayLike, *, probabilities: bool = False) -> NDArray[np.float32]:
        """Logits, N x classes, of images N x H x W x C: uint8 pixels, or floats, preprocessed.

        probabilities: their softmax instead
        """
        return self._run(self._session(False), self._items(np.asarray(images)), probabilities)

    def activations(
        self, image: ArrayLike, names: Optional[Sequence[str]] = None
    ) -> Dict[str, NDArray[np.float32]]:
        """Results of layers for one image, H x W x C, as real numbers, each H x W x C.

        names: which ones; all of `tensors` by default
        """
        session = self._looked_at(image)
        found = {}
        for name in self.tensors if names is None else names:
            view = ffi.new("ptq_tensor *")
            call(lib.ptq_session_tensor, session, name.encode(), view)
            count = lib.ptq_tensor_elements(view)
            values = (lib.ptq_tensor_real(view, i) for i in range(count))
            found[name] = np.fromiter(values, np.float32, count).reshape(
                list(view.dim)[: view.rank]
            )
        return found

    def _looked_at(self, image: ArrayLike):
        """A session that has run the image and kept every tensor."""
        session = self._session(True)
        self._run(session, self._items(np.asarray(image)[np.newaxis]))
        return session

    def explain(
        self, image: ArrayLike, node: str, row: int = 0, column: int = 0, channel: int = 0
    ) -> Explanation:
        """How one element of an integer layer's result is computed, for one image H x W x C.

        node: a convolution, a dense layer, or an average over the whole image
        """
        session = self._looked_at(image)
        where = self._plan, session, node.encode(), row, column, channel
        found = ffi.gc(ffi.new("arithmetic *"), lib.arithmetic_close)
        call(lib.arithmetic_open, *where, found)
        text = make("char", lib.free, lib.explain_element, *where)
        return _explanation(node, found, text_of(text))

    # ---- Evaluation ----

    def evaluate(
        self,
        images: Images,
        labels: ArrayLike,
        *,
        baseline: Optional["Model"] = None,
        threads: Optional[int] = None,
        progress: Optional[Progress] = None,
    ) -> Evaluation:
        """Accuracy on images N x H x W x C with N labels from 0, beside a baseline if one is given.

        threads:  all processors by default; the result does not depend on it
        progress: called as progress(done, total); a true answer stops with ptq.Error
        """
        items = self._items(images)
        data = Dataset(items, as_labels(labels, len(items)), self.classes)
        self._warn_of_overlap(data)
        mine = self._evaluate(data, threads, progress)
        if baseline is None:
            return _evaluation(mine, None)
        other, compared = baseline._evaluate(data, threads, progress), ffi.new("ptq_comparison *")
        call(lib.ptq_compare, other, mine, compared)
        return _evaluation(mine, compared)

    def _evaluate(self, data: Dataset, threads: Optional[int], progress: Optional[Progress]):
        options = ffi.new("ptq_evaluate_options *")
        out = ffi.new("ptq_evaluation *")
        with watched(options.work, threads, progress):
            call(lib.ptq_evaluate, self._plan, data.view, options, out)
        return ffi.gc(out, lambda made: lib.ptq_release(ffi.addressof(made, "memory")))

    def _warn_of_overlap(self, data: Dataset) -> None:
        if self._calibration is None or not data.view.count:
            return
        seen = ffi.new("size_t *")
        call(lib.ptq_calibration_overlap, self._calibration, data.view, seen)
        if seen[0]:
            warn_lines(
                "%d of the %d images were calibrated on, so that the accuracy says little; evaluate"
                " on others" % (seen[0], data.view.count),
                3,
            )


def _read(function, *arguments):
    return make("ptq_model", lib.ptq_model_free, function, *arguments, ffi.NULL)


def _array(pointer, count: int, dtype: DTypeLike) -> NDArray:
    """A copy of the library's memory."""
    dtype = np.dtype(dtype)
    if not count:
        return np.empty(0, dtype)
    return np.frombuffer(ffi.buffer(pointer, count * dtype.itemsize), dtype).copy()


def _comparison(c) -> Comparison:
    return Comparison(
        total=c.total,
        correct=c.after,
        baseline_correct=c.before,
        agreement=c.agree / c.total,
        lost=c.lost,
        won=c.won,
        delta_pp=c.delta_pp,
        interval_pp=(c.low_pp, c.high_pp),
        p_value=c.p_value,
        sqnr_db=c.sqnr_db,
        kl=c.kl,
    )


def _evaluation(e, compared) -> Evaluation:
    n = e.classes
    low, high = ffi.new("double *"), ffi.new("double *")
    lib.ptq_share_interval(e.correct, e.total, low, high)
    return Evaluation(
        total=e.total,
        correct=e.correct,
        accuracy=e.correct / e.total,
        interval=(low[0], high[0]),
        predictions=_array(e.prediction, e.total, np.int32),
        logits=_array(e.logits, e.total * n, np.float32).reshape(e.total, n),
        confusion=_array(e.confusion, n * n, np.uintp).astype(np.int64).reshape(n, n),
        comparison=None if compared is None else _comparison(compared),
    )


def _addition(a) -> Optional[Addition]:
    if not a.adds:
        return None
    return Addition(
        first=a.code if a.own_first else a.residual,
        second=a.residual if a.own_first else a.code,
        ratio=(a.ratio[0], a.ratio[1]),
        shift=a.shift,
        low=a.added_low,
        high=a.added_high,
        code=a.added_code,
        value=a.added_value,
    )


def _explanation(node: str, a, text: str) -> Explanation:
    window = tuple(a.window)
    weights = _array(a.weight, a.taps, np.int32) if a.weight else np.ones(a.taps, np.int32)
    return Explanation(
        node=node,
        position=(a.y, a.x, a.c),
        corner=(a.top, a.left, a.channel),
        inputs=_array(a.input, a.taps, np.int32).reshape(window),
        weights=weights.reshape(window),
        input_scale=a.input_scale,
        input_zero_point=a.input_zero_point,
        weight_scale=a.weight_scale,
        bias=a.bias,
        accumulator=a.sum,
        multiplier=a.multiplier,
        scaled=a.scaled,
        scale=a.scale,
        zero_point=a.zero_point,
        low=a.low,
        high=a.high,
        code=a.code if a.coded else None,
        value=a.value if a.coded else a.scaled,
        addition=_addition(a),
        text=text,
    )
