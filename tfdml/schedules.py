"""How "In Defense of the Triplet Loss" trains: a learning rate that holds, then falls, and a beta_1 that changes then.

    rate = tfdml.schedules.HoldThenDecay(1e-3, hold=15_000, end=25_000)
    model.compile(tfdml.schedules.BetaSwitchAdam(rate, switch_at=rate.hold), loss=...)

SphereFace's rate, a tenth at 16,000 and at 24,000 steps, is Keras's own
`keras.optimizers.schedules.PiecewiseConstantDecay([16_000, 24_000], [0.1, 0.01, 0.001])`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfdml._checks import check_positive

__all__ = ["BetaSwitchAdam", "HoldThenDecay"]


@keras.saving.register_keras_serializable(package="tfdml")
class HoldThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that holds, then falls exponentially.

    rate(t) = learning_rate                                          for t <= hold
    rate(t) = learning_rate * factor^((t - hold) / (end - hold))     for hold <= t <= end, and rate(end) from then on

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017; t counts training steps from 0.

    Args:
        learning_rate: the rate that holds; the paper's is 1e-3 from scratch (LuNet) and 3e-4 for a pretrained network.
        hold: t_0, steps before it falls.
        end: t_1, the step at which it has fallen.
        factor: by which it falls.

    Raises:
        ValueError: an argument out of range, or `end` not after `hold`.

    Example:
        >>> rate = HoldThenDecay(1e-3, hold=100, end=200)
        >>> [f"{float(rate(step)):.1e}" for step in (0, 100, 150, 200, 300)]
        ['1.0e-03', '1.0e-03', '3.2e-05', '1.0e-06', '1.0e-06']
    """

    def __init__(self, learning_rate: float = 1e-3, hold: int = 15_000, end: int = 25_000, factor: float = 0.001) -> None:
        check_positive("learning_rate", learning_rate)
        check_positive("hold", hold, allow_zero=True)
        check_positive("factor", factor)
        check_positive("end", end)
        if end <= hold:
            raise ValueError(f"end={end!r}: expected a step after hold={hold!r}.")
        self.learning_rate, self.hold, self.end, self.factor = learning_rate, hold, end, factor

    def __call__(self, step: Any) -> tf.Tensor:
        # In float64: float32 cannot count beyond 2^24 steps.
        passed = (tf.cast(step, tf.float64) - self.hold) / (self.end - self.hold)
        rate = self.learning_rate * tf.cast(self.factor, tf.float64) ** tf.clip_by_value(passed, 0.0, 1.0)
        return tf.cast(rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "hold": self.hold, "end": self.end, "factor": self.factor}


@keras.saving.register_keras_serializable(package="tfdml")
class BetaSwitchAdam(keras.optimizers.Adam):
    """Adam whose beta_1 changes once, at a given step.

    Hermans, Beyer, Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017, set beta_1 from 0.9 to 0.5
    where the learning rate begins to fall. A callback cannot do that: Keras writes beta_1 as a constant into the training
    step that it compiles. Here it is a function of the optimiser's own count of steps, which is saved with the model, so a
    training that goes on after the switch goes on with the later value. All else, the correction of the first steps' bias
    included, is Keras's Adam with the beta_1 of that step.

    Args:
        learning_rate: a number or a schedule.
        beta_1: before the switch.
        late_beta_1: from the switch on.
        switch_at: t_0, the number of steps before the switch.
        **kwargs: those of `keras.optimizers.Adam`.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> optimizer = BetaSwitchAdam(HoldThenDecay(1e-3, hold=100, end=200), switch_at=100)
        >>> print(f"{float(optimizer.beta_1):.1f}")
        0.9
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        late_beta_1: float = 0.5,
        switch_at: int = 15_000,
        **kwargs: Any,
    ) -> None:
        for name, value in {"beta_1": beta_1, "late_beta_1": late_beta_1}.items():
            check_positive(name, value, allow_zero=True)
            if value >= 1:
                raise ValueError(f"{name}={value!r}: expected a number from 0 to below 1.")
        check_positive("switch_at", switch_at, allow_zero=True)
        super().__init__(learning_rate, beta_1=beta_1, **kwargs)
        self.late_beta_1, self.switch_at = late_beta_1, int(switch_at)
        self._beta_dtype: Any = tf.float32

    @property
    def beta_1(self) -> tf.Tensor:
        """Of the next step."""
        late = tf.convert_to_tensor(self.iterations) >= tf.cast(self.switch_at, tf.int64)
        return tf.where(late, tf.cast(self.late_beta_1, self._beta_dtype), tf.cast(self.early_beta_1, self._beta_dtype))

    @beta_1.setter
    def beta_1(self, value: float) -> None:
        self.early_beta_1 = value

    def update_step(self, gradient: Any, variable: Any, *args: Any) -> None:
        # Keras takes beta_1 for a Python number, which fits every dtype.
        self._beta_dtype = tf.as_dtype(variable.dtype)
        super().update_step(gradient, variable, *args)
        self._beta_dtype = tf.float32

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_1": self.early_beta_1,
            "late_beta_1": self.late_beta_1,
            "switch_at": self.switch_at,
        }
