"""What evaluation and explanation return: plain values and numpy's arrays."""

from dataclasses import dataclass, field
from typing import Optional, Tuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Comparison:
    """A model beside its baseline, on the same images."""

    total: int
    correct: int  # of the model
    baseline_correct: int
    agreement: float  # share of images with the same answer, 0 to 1
    lost: int  # images that the baseline had right and the model has wrong
    won: int  # and the other way round
    delta_pp: float  # difference of the accuracies, percentage points
    interval_pp: Tuple[float, float]  # its 95 % score interval (Tango 1998)
    p_value: float  # McNemar's exact test, two-sided
    sqnr_db: float  # of the logits, against the baseline's
    kl: float  # mean divergence of the softmax from the baseline's, in nats

    def __str__(self) -> str:
        return "%.2f %%, baseline %.2f %%: %+.2f points [%+.2f, %+.2f]; same answer on %.2f %%" % (
            100 * self.correct / self.total,
            100 * self.baseline_correct / self.total,
            self.delta_pp,
            *self.interval_pp,
            100 * self.agreement,
        )


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to labelled images."""

    total: int
    correct: int
    accuracy: float  # correct / total, 0 to 1
    interval: Tuple[float, float]  # its 95 % interval (Wilson 1927), 0 to 1
    predictions: NDArray[np.int32] = field(repr=False)  # N
    logits: NDArray[np.float32] = field(repr=False)  # N x classes
    confusion: NDArray[np.int64] = field(repr=False)  # classes x classes: [label, prediction]
    comparison: Optional[Comparison] = None  # with the baseline, where one was given

    def __str__(self) -> str:
        return "%d of %d right, %.2f %% [%.2f, %.2f]" % (
            self.correct,
            self.total,
            100 * self.accuracy,
            100 * self.interval[0],
            100 * self.interval[1],
        )


@dataclass(frozen=True)
class Addition:
    """The residual addition that is fused behind a convolution.

    code = clamp(rne(fma(first, ratio[0], fma(second, ratio[1], shift)))) to low..high"""

    first: int  # raw codes of the operands
    second: int
    ratio: Tuple[float, float]
    shift: float
    low: int
    high: int
    code: int
    value: float


@dataclass(frozen=True)
class Explanation:
    """The arithmetic behind one element of an integer layer's result.

    `inputs` and `weights` are channels x height x width of the window, codes less their zero
    points; under padding inputs are 0. A dense layer's window is all of its input, as channels; an
    average over the image has the weights 1.

        accumulator = bias + (inputs * weights).sum()
        scaled      = float32(accumulator) * float32(multiplier)
        code        = clamp(rint(scaled) + zero_point) to low..high
        value       = scale * (code - zero_point)

    A layer whose results are real numbers has no code: value = scaled, scale 0."""

    node: str
    position: Tuple[int, int, int]  # row, column, channel of the result
    corner: Tuple[int, int, int]  # row, column, channel of the input at the window's first tap
    inputs: NDArray[np.int32] = field(repr=False)
    weights: NDArray[np.int32] = field(repr=False)
    input_scale: float
    input_zero_point: int
    weight_scale: float
    bias: int
    accumulator: int
    multiplier: float
    scaled: float
    scale: float
    zero_point: int
    low: int
    high: int
    code: Optional[int]
    value: float
    addition: Optional[Addition]
    text: str = field(repr=False)  # all of it, as `ptq run --explain` prints it

    def __str__(self) -> str:
        return self.text
