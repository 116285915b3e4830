"""Learning rate schedules: pure functions from the step to the learning rate.

Each schedule says which multiple of the peak holds at a step (`factor`); warm-up is common to all of them.
Factors come from Optax where Optax has them. They are called there with a length of 1 and the progress in [0, 1]
as the step, because Optax branches in Python on lengths and decay rates, which may be traced here.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdl.catalog import Entry
from jaxdl.errors import InputError
from jaxdl.types import Bounds, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability

SCHEDULES: dict[str, Entry] = {
    "constant": Entry("jaxdl.schedules", "Constant"),
    "step": Entry("jaxdl.schedules", "Step"),
    "exponential": Entry("jaxdl.schedules", "Exponential"),
    "polynomial": Entry("jaxdl.schedules", "Polynomial"),
    "linear": Entry("jaxdl.schedules", "Polynomial", {"power": 1.0}),
    "cosine": Entry("jaxdl.schedules", "Cosine"),
    "cosine_restarts": Entry("jaxdl.schedules", "CosineRestarts"),
    "triangular": Entry("jaxdl.schedules", "Triangular"),
    "one_cycle": Entry("jaxdl.schedules", "OneCycle"),
    "wsd": Entry("jaxdl.schedules", "WarmupStableDecay"),
    "reduce_on_plateau": Entry("jaxdl.schedules", "ReduceOnPlateau"),
}


def progress(step, begin, end) -> jax.Array:
    """How far `step` is on the way from `begin` to `end`, in [0, 1]."""
    return jnp.clip((step - begin) / jnp.maximum(end - begin, 1), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What all schedules share: a linear warm-up from zero to the peak, and then `factor`.

    Attributes:
      warmup_steps: Steps of linear warm-up, from 0 to the peak.
      warmup_fraction: More steps of warm-up, as a fraction of all steps.
    """

    warmup_steps: NonNegativeInt = 0
    warmup_fraction: Probability = 0.0

    def factor(self, step, begin, end) -> jax.Array:
        """The multiple of the peak at `step` of a run of `end` steps whose warm-up ended at `begin`."""
        raise NotImplementedError

    def build(self, peak, total_steps: int) -> Callable[[jax.Array | int], jax.Array]:
        """The function from step to learning rate, for a run of `total_steps` steps.

        The warm-up gives 0 at step 0 and the peak at the step it ends. What decays has decayed at `total_steps`,
        one step after the last one that is taken.
        """
        warmup = self.warmup_steps + self.warmup_fraction * total_steps

        def learning_rate(step):
            rising = step / jnp.maximum(warmup, 1)
            factor = jnp.where(step < warmup, rising, self.factor(step, warmup, total_steps))
            return jnp.asarray(peak * factor, jnp.float32)

        return learning_rate


class Constant(Schedule):
    """The peak throughout."""

    def factor(self, step, begin, end):
        return jnp.float32(1)


@dataclasses.dataclass(frozen=True)
class Step(Schedule):
    """Multiplied by `decay` at each milestone, or every so many steps.

    Attributes:
      milestones: Steps of the run at which the learning rate is multiplied by `decay`, such as 32000,48000.
      every: Multiply by `decay` after each so many steps since the warm-up, beside the milestones; 0 for never.
      decay: What the learning rate is multiplied by.
    """

    milestones: tuple[int, ...] = ()
    every: NonNegativeInt = 0
    decay: PositiveFloat = 0.1

    def build(self, peak, total_steps):
        if not self.milestones and not self.every:
            raise InputError("schedule 'step' needs --schedule.milestones=32000,48000 or --schedule.every=1000.")
        return super().build(peak, total_steps)

    def factor(self, step, begin, end):
        count = sum(jnp.where(step >= milestone, 1, 0) for milestone in self.milestones)
        if self.every:
            count += jnp.maximum(jnp.floor((step - begin) / self.every), 0)
        return self.decay ** jnp.float32(count)


@dataclasses.dataclass(frozen=True)
class Exponential(Schedule):
    """Multiplied by `decay` over each `every` steps, a little at each step.

    Attributes:
      decay: What the learning rate is multiplied by over `every` steps.
      every: Steps over which the learning rate is multiplied by `decay`.
      end_ratio: The least learning rate, as a fraction of the peak.
    """

    decay: PositiveFloat = 0.96
    every: PositiveInt = 1000
    end_ratio: NonNegativeFloat = 0.0

    def factor(self, step, begin, end):
        return jnp.maximum(self.decay ** (jnp.maximum(step - begin, 0) / self.every), self.end_ratio)


@dataclasses.dataclass(frozen=True)
class Polynomial(Schedule):
    """Falls to the end as (1 - progress) ** power; a power of 1 is linear.

    Attributes:
      power: The exponent: 1 falls linearly, more falls faster at first.
      end_ratio: The learning rate at the end, as a fraction of the peak.
    """

    power: PositiveFloat = 2.0
    end_ratio: NonNegativeFloat = 0.0

    def factor(self, step, begin, end):
        return optax.polynomial_schedule(1.0, self.end_ratio, self.power, 1)(progress(step, begin, end))


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the peak to the end (SGDR, arXiv 1608.03983, eq. 5, without restarts).

    Attributes:
      end_ratio: The learning rate at the end, as a fraction of the peak.
    """

    end_ratio: NonNegativeFloat = 0.0

    def factor(self, step, begin, end):
        return optax.cosine_decay_schedule(1.0, 1, self.end_ratio)(progress(step, begin, end))


@dataclasses.dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Half a cosine, again and again (SGDR, arXiv 1608.03983, eq. 5).

    Attributes:
      cycle_steps: Steps of the first cycle, T_0 of the paper.
      cycle_multiplier: How many times longer each cycle is than the one before, T_mult of the paper.
      restart_decay: What each restart's peak is multiplied by, compared with the one before.
      end_ratio: The learning rate at the end of a cycle, as a fraction of its peak.
    """

    cycle_steps: PositiveInt = 1000
    cycle_multiplier: PositiveInt = 1
    restart_decay: PositiveFloat = 1.0
    end_ratio: NonNegativeFloat = 0.0

    def factor(self, step, begin, end):
        step = jnp.maximum(step - begin, 0)
        starts, lengths = [0], [self.cycle_steps]
        while starts[-1] + lengths[-1] <= end:
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * self.cycle_multiplier)
        cycle = jnp.searchsorted(jnp.array(starts), step, side="right") - 1
        position = (step - jnp.array(starts)[cycle]) / jnp.array(lengths)[cycle]
        cosine = optax.cosine_decay_schedule(1.0, 1, self.end_ratio)(position)
        return self.restart_decay ** jnp.float32(cycle) * cosine


@dataclasses.dataclass(frozen=True)
class Triangular(Schedule):
    """Up and down between a floor and the peak in straight lines (cyclical, arXiv 1506.01186, section 3).

    Attributes:
      half_cycle_steps: Steps from the floor to the peak, `stepsize` of the paper.
      floor_ratio: The floor, as a fraction of the peak.
      variant: `triangular` keeps the peak, `triangular2` halves its height over the floor at each cycle,
        `exp_range` multiplies the height by `decay` at each step.
      decay: What `exp_range` multiplies the height by at each step.
    """

    half_cycle_steps: PositiveInt = 2000
    floor_ratio: NonNegativeFloat = 0.1
    variant: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    decay: PositiveFloat = 0.9999

    def factor(self, step, begin, end):
        step = jnp.maximum(step - begin, 0)
        cycle = jnp.floor(step / (2 * self.half_cycle_steps))
        height = 1 - jnp.abs(step / self.half_cycle_steps - 2 * cycle - 1)
        if self.variant == "triangular2":
            height *= 0.5**cycle
        elif self.variant == "exp_range":
            height *= self.decay ** jnp.float32(step)
        return self.floor_ratio + (1 - self.floor_ratio) * height


@dataclasses.dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to the peak and down to far below the start, once (super-convergence, arXiv 1708.07120).

    Attributes:
      peak_fraction: Where the peak is, as a fraction of all steps.
      start_ratio: The learning rate at the start, as a fraction of the peak.
      end_ratio: The learning rate at the end, as a fraction of the peak.
      shape: `cosine` eases in and out, as fast.ai does; `linear` is the paper's: straight up, straight down to
        the start, and over the last steps down to the end.
      annealing_fraction: The share of all steps that `linear` spends below the start, at the end.
    """

    peak_fraction: Probability = 0.3
    start_ratio: NonNegativeFloat = 0.04
    end_ratio: NonNegativeFloat = 4e-6
    shape: Literal["cosine", "linear"] = "cosine"
    annealing_fraction: Probability = 0.15

    def factor(self, step, begin, end):
        now = progress(step, begin, end)
        peak = self.peak_fraction
        if self.shape == "linear":
            times = jnp.array([0.0, peak, jnp.maximum(peak, 1 - self.annealing_fraction), 1.0])
            return jnp.interp(now, times, jnp.array([self.start_ratio, 1.0, self.start_ratio, self.end_ratio]))
        height = jnp.interp(now, jnp.array([0.0, peak, 1.0]), jnp.array([0.0, 1.0, 0.0]))
        floor = jnp.where(now < peak, self.start_ratio, self.end_ratio)
        return floor + (1 - floor) * (1 - jnp.cos(jnp.pi * height)) / 2


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """The peak for most of the run, then a short decay (arXiv 2404.06395; the shapes, arXiv 2405.18392).

    Attributes:
      decay_fraction: The share of all steps, at the end, over which the learning rate decays.
      shape: How it decays: `sqrt` as 1 - sqrt(x), `linear` as 1 - x, `cosine` as half a cosine.
      end_ratio: The learning rate at the end, as a fraction of the peak.
    """

    decay_fraction: Probability = 0.2
    shape: Literal["sqrt", "linear", "cosine"] = "sqrt"
    end_ratio: NonNegativeFloat = 0.0

    def factor(self, step, begin, end):
        x = progress(step, jnp.maximum(begin, end * (1 - self.decay_fraction)), end)
        if self.shape == "cosine":
            return optax.cosine_decay_schedule(1.0, 1, self.end_ratio)(x)
        fall = jnp.sqrt(x) if self.shape == "sqrt" else x
        return 1 - (1 - self.end_ratio) * fall


@dataclasses.dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """The peak, multiplied by `decay` whenever the training loss has stopped falling.

    What it knows of the past is part of the optimizer's state, and so of a checkpoint. `decay` and `rtol` are
    checked by Optax in Python and cannot be traced: each of their values is a program of its own.

    Attributes:
      decay: What the learning rate is multiplied by on a plateau.
      average_steps: The loss is averaged over so many steps, and the averages are compared.
      patience: Averages without improvement that make a plateau.
      rtol: An average counts as an improvement when it is lower than the best by this fraction of it.
      cooldown: Averages after a reduction during which none counts as bad.
      end_ratio: The least learning rate, as a fraction of the peak.
    """

    decay: Annotated[float, Bounds(0, 1, exclusive_minimum=True, exclusive_maximum=True)] = 0.1
    average_steps: PositiveInt = 100
    patience: PositiveInt = 10
    rtol: Annotated[float, Bounds(0, 1, exclusive_minimum=True)] = 1e-4
    cooldown: NonNegativeInt = 0
    end_ratio: NonNegativeFloat = 0.0

    untraceable: ClassVar[tuple[str, ...]] = ("decay", "rtol")

    def factor(self, step, begin, end):
        return jnp.float32(1)

    def scale_by_plateau(self) -> optax.GradientTransformationExtraArgs:
        """Scales updates by the reduction so far, `state.scale`; its update takes the loss as `value`."""
        return optax.contrib.reduce_on_plateau(
            self.decay,
            patience=self.patience,
            rtol=self.rtol,
            cooldown=self.cooldown,
            accumulation_size=self.average_steps,
            min_scale=self.end_ratio,
        )
