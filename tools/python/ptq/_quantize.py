"""From a float model and images to a quantized model."""

from typing import Mapping, Optional

from ptq._images import Dataset, Images
from ptq._library import Progress, call, ffi, lib, make, names, warn_lines, watched, write_text
from ptq._model import Model

PRESETS = {
    name: text for name, text in zip(names(lib.PTQ_NAMES_PRESET), names(lib.PTQ_NAMES_PRESET_TEXT))
}


def _scheme(name: str, weight_bits: Optional[int], activation_bits: Optional[int]):
    scheme = ffi.new("ptq_scheme *")
    if name == "float":
        scheme.mode = lib.PTQ_MODE_FLOAT
        return scheme
    call(lib.ptq_preset, name.encode(), scheme)
    if weight_bits is not None:
        scheme.weight_bits = weight_bits
    if activation_bits is not None:
        scheme.activation_bits = activation_bits
    return scheme


def _overrides(options, nodes: Mapping[str, str]):
    """Fills the list, and returns what must live as long as it."""
    patterns = [ffi.new("char[]", pattern.encode()) for pattern in nodes]
    made = ffi.new("ptq_override[]", len(patterns))
    for override, pattern, scheme in zip(made, patterns, nodes.values()):
        override.pattern = pattern
        override.scheme = _scheme(scheme, None, None)[0]
    options.override, options.overrides = made, len(patterns)
    return patterns, made


def _calibrate(model: Model, data: Dataset, threads, progress):
    options = ffi.new("ptq_calibrate_options *")
    with watched(options.work, threads, progress):
        arguments = lib.ptq_calibrate, model._plan, data.view, options
        return make("ptq_calibration", lib.ptq_calibration_free, *arguments)


def quantize(
    model: Model,
    images: Images,
    scheme: str = "best",
    *,
    weight_bits: Optional[int] = None,
    activation_bits: Optional[int] = None,
    nodes: Optional[Mapping[str, str]] = None,
    threads: Optional[int] = None,
    progress: Optional[Progress] = None,
) -> Model:
    """Calibrates a float model on images and converts it to integers.

    images:   N x H x W x C, uint8 pixels (or floats, preprocessed), or any iterable of such arrays
              or of single images, H x W x C. All are used: a thousand training images are enough,
              and `ptq.sample` chooses them. Never those that the accuracy is reported on.
    scheme:   a name in `ptq.PRESETS`
    weight_bits, activation_bits: 2 to 8, over the scheme's
    nodes:    other schemes for some nodes, by pattern, as {"fc": "float", "block3.*": "w4a8"}; the
              last that matches counts
    threads:  all processors by default; the result does not depend on it
    progress: called as progress(done, total) by each long step; a true answer stops the work

    What the images lack, as classes that are rare, is told by warnings. The result does not
    depend on their order; its file is the one that `ptq quantize --no-measure` writes.
    """
    data = Dataset(model._items(images), None, model.classes)
    options = ffi.new("ptq_convert_options *")
    options.scheme = _scheme(scheme, weight_bits, activation_bits)[0]
    kept = _overrides(options, nodes or {})
    calibration = _calibrate(model, data, threads, progress)
    warn_lines(write_text(lib.ptq_calibration_warnings, calibration), 2)
    options.images = data.view
    with watched(options.work, threads, progress):
        arguments = lib.ptq_convert, model._fused, calibration, options
        made = make("ptq_model", lib.ptq_model_free, *arguments, after=(ffi.NULL,))
    del kept
    call(lib.ptq_self_test_add, made)
    quantized = Model(made)
    quantized._calibration = calibration
    return quantized
