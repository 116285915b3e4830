"""From flags to one Optax transformation: clip, direction, weight decay, rates by path, schedule.

An optimizer here gives the direction only (`build`); the learning rate, its schedule, clipping, the weight decay
mask, freezing and rates by parameter path are common to all and come from `Update`. With the same hyperparameters
the numbers are those of Optax's own `adamw`, `lamb` and so on.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdl.catalog import Entry
from jaxdl.errors import InputError
from jaxdl.parametrization import Scales
from jaxdl.paths import check_patterns, map_paths, matches, weight_mask
from jaxdl.schedules import ReduceOnPlateau, Schedule
from jaxdl.types import NonNegativeFloat, PositiveFloat, PositiveInt, Rate

OPTIMIZERS: dict[str, Entry] = {
    "sgd": Entry("jaxdl.optimizers", "SGD"),
    "rmsprop": Entry("jaxdl.optimizers", "RMSProp"),
    "adagrad": Entry("jaxdl.optimizers", "Adagrad"),
    "adam": Entry("jaxdl.optimizers", "Adam"),
    "nadam": Entry("jaxdl.optimizers", "Adam", {"nesterov": True}),
    "adamw": Entry("jaxdl.optimizers", "AdamW"),
    "radam": Entry("jaxdl.optimizers", "RAdam"),
    "lamb": Entry("jaxdl.optimizers", "LAMB"),
    "lion": Entry("jaxdl.optimizers", "Lion"),
    "adafactor": Entry("jaxdl.optimizers", "Adafactor"),
    "muon": Entry("jaxdl.optimizers", "Muon"),
}


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What all optimizers share.

    `weight_decay` is the decay when `--weight_decay` is not given. `mup` says whose learning rates it takes in maximal
    update parametrization (`jaxdl.parametrization`): SGD's, as its step is proportional to the gradient; Adam's, as its
    step's size does not depend on the gradient's; or none that are known.
    """

    weight_decay: ClassVar[float] = 0.0
    mup: ClassVar[Literal["sgd", "adam"] | None] = None

    def build(self, decay: optax.GradientTransformation) -> optax.GradientTransformation:
        """From gradients to the direction of ascent, without the learning rate.

        Args:
          decay: adds the weight decay to a direction; each optimizer places it, for LAMB scales it too.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent with heavy-ball or Nesterov momentum (Sutskever et al. 2013, as in PyTorch).

    Attributes:
      momentum: What is kept of the sum of past gradients at each step; 0 is plain gradient descent.
      nesterov: Nesterov's momentum.
    """

    momentum: Rate = 0.0
    nesterov: bool = False
    mup = "sgd"

    def build(self, decay):
        return optax.chain(_momentum(self.momentum, self.nesterov), decay)


@dataclasses.dataclass(frozen=True)
class RMSProp(Optimizer):
    """Divided by the root of the mean square of past gradients (Tieleman and Hinton 2012, lecture 6.5).

    Momentum is taken before the learning rate is applied, as in PyTorch; Optax's alias takes it after, which
    differs when the learning rate changes.

    Attributes:
      decay: Decay rate of the mean square; PyTorch's alpha, there 0.99.
      eps: Added to the mean square, or to its root.
      eps_in_sqrt: Add eps under the root, as Optax and TensorFlow do; PyTorch adds it to the root.
      centered: Divide by the standard deviation instead: the mean is subtracted (Graves, arXiv 1308.0850).
      momentum: What is kept of the sum of past updates at each step.
      nesterov: Nesterov's momentum.
    """

    decay: Rate = 0.9
    eps: NonNegativeFloat = 1e-8
    eps_in_sqrt: bool = True
    centered: bool = False
    momentum: Rate = 0.0
    nesterov: bool = False
    mup = "adam"

    def build(self, decay):
        scale = optax.scale_by_stddev if self.centered else optax.scale_by_rms
        scaled = scale(self.decay, self.eps, eps_in_sqrt=self.eps_in_sqrt)
        return optax.chain(scaled, _momentum(self.momentum, self.nesterov), decay)


@dataclasses.dataclass(frozen=True)
class Adagrad(Optimizer):
    """Divided by the root of the sum of squares of all past gradients (Duchi et al., JMLR 2011).

    Attributes:
      initial_accumulator: What the sum of squares starts from.
      eps: Added to the sum of squares, under the root.
    """

    initial_accumulator: NonNegativeFloat = 0.1
    eps: NonNegativeFloat = 1e-7

    def build(self, decay):
        return optax.chain(optax.scale_by_rss(self.initial_accumulator, self.eps), decay)


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (arXiv 1412.6980, algorithm 1).

    Attributes:
      b1: Decay rate of the mean of the gradients.
      b2: Decay rate of the mean of their squares.
      eps: Added to the root of the mean square.
      nesterov: Nesterov's momentum (NAdam; Dozat 2016).
    """

    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: NonNegativeFloat = 1e-8
    nesterov: bool = False
    mup = "adam"

    def build(self, decay):
        return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps, nesterov=self.nesterov), decay)


class AdamW(Adam):
    """Adam with a weight decay of 1e-4 unless another is given (arXiv 1711.05101, algorithm 2)."""

    weight_decay = 1e-4


@dataclasses.dataclass(frozen=True)
class RAdam(Optimizer):
    """Adam with its variance rectified (arXiv 1908.03265, algorithm 2).

    Attributes:
      b1: Decay rate of the mean of the gradients.
      b2: Decay rate of the mean of their squares.
      eps: Added to the root of the mean square.
    """

    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: NonNegativeFloat = 1e-8

    def build(self, decay):
        return optax.chain(optax.scale_by_radam(self.b1, self.b2, self.eps), decay)


@dataclasses.dataclass(frozen=True)
class LAMB(Optimizer):
    """Adam, decayed and then scaled to each parameter array's norm (arXiv 1904.00962, algorithm 2).

    Attributes:
      b1: Decay rate of the mean of the gradients.
      b2: Decay rate of the mean of their squares.
      eps: Added to the root of the mean square.
    """

    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: NonNegativeFloat = 1e-6

    def build(self, decay):
        return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps), decay, optax.scale_by_trust_ratio())


@dataclasses.dataclass(frozen=True)
class Lion(Optimizer):
    """The sign of an interpolated momentum (arXiv 2302.06675, algorithm 2). Weight decay 1e-3 unless given.

    Attributes:
      b1: Weight of the momentum against the gradient, in the sign.
      b2: Decay rate of the momentum.
    """

    b1: Rate = 0.9
    b2: Rate = 0.99
    weight_decay = 1e-3
    mup = "adam"

    def build(self, decay):
        return optax.chain(optax.scale_by_lion(self.b1, self.b2), decay)


@dataclasses.dataclass(frozen=True)
class Adafactor(Optimizer):
    """Factored second moments, updates clipped and scaled to the parameters (arXiv 1804.04235, algorithm 4).

    The weight decay is multiplied by the learning rate, as everywhere here; in Optax's alias it is not.

    Attributes:
      decay_rate: At step t the mean square decays by 1 - t ** -decay_rate.
      clipping_threshold: The largest root mean square of an array's update before scaling; none for no bound.
      scale_by_parameter: Multiply an array's update by the root mean square of the array itself.
      momentum: Decay rate of a mean of updates; 0 for none.
      min_dim_size_to_factor: Only arrays with two dimensions of at least this size are factored.
      eps: Added to squared gradients.
    """

    decay_rate: PositiveFloat = 0.8
    clipping_threshold: PositiveFloat | None = 1.0
    scale_by_parameter: bool = True
    momentum: Rate = 0.0
    min_dim_size_to_factor: PositiveInt = 128
    eps: NonNegativeFloat = 1e-30

    def build(self, decay):
        descent = optax.adafactor(
            None,  # no learning rate
            min_dim_size_to_factor=self.min_dim_size_to_factor,
            decay_rate=self.decay_rate,
            multiply_by_parameter_scale=self.scale_by_parameter,
            clipping_threshold=self.clipping_threshold,
            momentum=None if _is_zero(self.momentum) else self.momentum,
            eps=self.eps,
        )
        return optax.chain(descent, optax.scale(-1.0), decay)


@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
    """Momentum orthogonalised by Newton-Schulz iterations (Jordan et al. 2024; arXiv 2502.16982).

    It serves matrices only. Whatever is not two-dimensional (biases, norm scales, convolution kernels), and what
    `exclude` matches, is updated by NAdam with the same learning rate, as in Optax.

    Attributes:
      momentum: Decay rate of the momentum.
      nesterov: Nesterov's momentum, for the matrices and for the rest.
      ns_steps: Newton-Schulz iterations.
      rms: Scale each matrix's update to this root mean square, 0.2 being AdamW's (arXiv 2502.16982, eq. 4); by
        default it is scaled by max(1, fan_out / fan_in) ** 0.5.
      exclude: Path patterns of matrices that NAdam updates: embeddings; the output layer is often another.
      b1: NAdam's decay rate of the mean of the gradients.
      b2: NAdam's decay rate of the mean of their squares.
      eps: Added to norms and roots that divide.
    """

    momentum: Rate = 0.95
    nesterov: bool = True
    ns_steps: PositiveInt = 5
    rms: PositiveFloat | None = None
    exclude: tuple[str, ...] = ("*embedding",)
    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: NonNegativeFloat = 1e-8

    def build(self, decay):
        def dimensions(params):
            def dimensions_of(path, array):
                is_matrix = array.ndim == 2 and not matches(path, self.exclude)
                return optax.contrib.MuonDimensionNumbers() if is_matrix else None

            return map_paths(dimensions_of, params)

        descent = optax.contrib.muon(
            1.0,
            ns_steps=self.ns_steps,
            beta=self.momentum,
            eps=self.eps,
            nesterov=self.nesterov,
            adam_b1=self.b1,
            adam_b2=self.b2,
            muon_weight_dimension_numbers=dimensions,
            consistent_rms=self.rms,
        )
        return optax.chain(descent, optax.scale(-1.0), decay)


@dataclasses.dataclass(frozen=True)
class Update:
    """How parameters are updated, whatever the optimizer.

    Attributes:
      learning_rate: The peak of the schedule.
      weight_decay: Decoupled weight decay, multiplied by the learning rate; by default the optimizer's own: 1e-4
        for adamw, 1e-3 for lion, 0 for the others.
      weight_decay_mask: What decays and is penalised: `kernels` is every array of at least two dimensions that is
        not called bias or scale, embeddings included; `all` is every parameter.
      l1_penalty: Adds l1_penalty * sum |w| to the loss; with l2_penalty this is the elastic net.
      l2_penalty: Adds l2_penalty / 2 * sum w^2 to the loss; unlike weight decay, its gradient passes through the
        optimizer (PyTorch's weight_decay of SGD and Adam).
      clip_value: Clips each element of the gradient to at most this magnitude.
      clip_block_norm: Scales each parameter array's gradient down to at most this norm.
      clip_norm: Scales the whole gradient down to at most this norm, after the other two.
      learning_rate_scales: Other learning rates by path, as pattern=factor, such as `Dense_0=0.1,*/bias=2`; the
        factors of all patterns that match are multiplied.
      freeze: Path patterns of parameters that stay as they are: no update, no decay, no optimizer state.
      ema_decay: Keep an exponential moving average of the parameters with this decay, and evaluate with it.
      ema_debias: Correct the average for its start, so that early parameters weigh no more than later ones.
    """

    learning_rate: NonNegativeFloat = 1e-3
    weight_decay: NonNegativeFloat | None = None
    weight_decay_mask: Literal["kernels", "all"] = "kernels"
    l1_penalty: NonNegativeFloat = 0.0
    l2_penalty: NonNegativeFloat = 0.0
    clip_value: PositiveFloat | None = None
    clip_block_norm: PositiveFloat | None = None
    clip_norm: PositiveFloat | None = None
    learning_rate_scales: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    ema_decay: Rate | None = None
    ema_debias: bool = False


def build_optimizer(
    update: Update,
    optimizer: Optimizer,
    schedule: Schedule,
    params: Any,
    total_steps: int,
    scales: Scales | None = None,
    *,
    everything: Any = None,
) -> tuple[optax.GradientTransformationExtraArgs, Callable[[Any, Any], jax.Array]]:
    """The transformation of one player's gradients, and its learning rate.

    Args:
      update, optimizer, schedule: the flags. Their float fields may be traced.
      params: the player's parameters, or their shapes, by whose paths patterns go.
      total_steps: how many steps the run has.
      scales: a parametrization's factors by path, for an optimizer that has a rule `mup`.
      everything: the parameters of all players, of which each pattern has to match some; None: `params` are all.

    Returns:
      The transformation. Its state is float32 whatever the type of the gradients. Beside `params`, its `update`
      takes `step`, the steps of the run before this one, and the loss as `value`, for `reduce_on_plateau`.
      A function `(step, opt_state) -> learning rate` (float32). With the state after the update it is the rate
      of that very update; the state before it lacks a reduction that a plateau has just caused.

    Raises:
      InputError: a pattern matches no parameter, or is not written as pattern=factor.
    """
    rates = dict(_parse_scale(text) for text in update.learning_rate_scales)
    everything = params if everything is None else everything
    check_patterns("learning_rate_scales", rates, everything)
    check_patterns("freeze", update.freeze, everything)

    weight_decay = optimizer.weight_decay if update.weight_decay is None else update.weight_decay
    decay = optax.add_decayed_weights(weight_decay, lambda params: weight_mask(params, update.weight_decay_mask))
    if scales:  # before the decay, which is the same for all
        own_rates = {path: getattr(scale, optimizer.mup) for path, scale in scales.items()}
        decay = optax.chain(optax.stateless(lambda direction, _: _times(own_rates, direction)), decay)
    transformation = optax.chain(_clip(update), optimizer.build(decay), _scale_by_path(rates))
    if scales:
        transformation = _of_factors({path: scale.multiplier for path, scale in scales.items()}, transformation)
    if update.freeze:

        def labels(params):
            return map_paths(lambda path, _: "frozen" if matches(path, update.freeze) else "trained", params)

        transformation = optax.partition({"trained": transformation, "frozen": optax.set_to_zero()}, labels)

    rate = schedule.build(update.learning_rate, total_steps)
    if not isinstance(schedule, ReduceOnPlateau):
        return _in_float32(optax.chain(transformation, _descend(rate))), lambda step, opt_state: rate(step)
    reduced = _in_float32(optax.chain(transformation, _descend(rate), schedule.scale_by_plateau()))
    return reduced, lambda step, opt_state: rate(step) * opt_state[-1].scale


def ema_update(ema, params, decay, step, debias: bool = False):
    """The exponential moving average of parameters after one more update: float32, shapes as `params`.

    Args:
      ema: the average so far, which starts as the parameters themselves.
      params: the parameters after the update.
      decay: weight of the average so far, in [0, 1).
      step: how many times the average was updated before.
      debias: weigh as if nothing had come before the first update: with t = step + 1, the decay becomes
        decay (1 - decay^(t-1)) / (1 - decay^t), which is Adam's bias correction (arXiv 1412.6980, section 3)
        kept in the average itself.
    """
    if debias:
        decay = decay * (1 - decay**step) / (1 - decay ** (step + 1))
    return jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, ema, params)


def _clip(update: Update) -> optax.GradientTransformation:
    clips = []
    if update.clip_value is not None:
        clips.append(optax.clip(update.clip_value))
    if update.clip_block_norm is not None:
        block = optax.clip_by_global_norm(update.clip_block_norm)
        clips.append(optax.stateless(lambda grads, _: jax.tree.map(lambda g: block.update(g, None)[0], grads)))
    if update.clip_norm is not None:
        clips.append(optax.clip_by_global_norm(update.clip_norm))
    return optax.chain(*clips) if clips else optax.identity()


def _momentum(decay, nesterov: bool) -> optax.GradientTransformation:
    return optax.identity() if _is_zero(decay) else optax.trace(decay, nesterov)


def _is_zero(value) -> bool:
    """Whether a field is plainly zero, so that nothing need be computed or kept; never when it is traced."""
    return isinstance(value, (int, float)) and value == 0


def _scale_by_path(scales: dict[str, float]) -> optax.GradientTransformation:
    if not scales:
        return optax.identity()

    def scale(path, direction):
        return direction * math.prod(factor for pattern, factor in scales.items() if matches(path, [pattern]))

    return optax.stateless(lambda updates, _: map_paths(scale, updates))


def _times(factors: dict[str, float], tree):
    return map_paths(lambda path, array: array * factors[path], tree)


def _of_factors(multipliers: dict[str, float], inner: optax.GradientTransformationExtraArgs):
    """`inner` as it updates u where the parameters are w = c u, c being the multiplier of each path."""
    inverse = {path: 1 / multiplier for path, multiplier in multipliers.items()}

    def update(grads, state, params=None, **extra):
        updates, state = inner.update(_times(multipliers, grads), state, _times(inverse, params), **extra)
        return _times(multipliers, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: inner.init(_times(inverse, params)), update)


def _descend(rate: Callable[[Any], jax.Array]) -> optax.GradientTransformationExtraArgs:
    """Minus the learning rate at `step`. Optax would count updates, which lag behind when some are skipped."""

    def update(updates, state, params=None, *, step, **extra):
        factor = -rate(step)
        return jax.tree.map(lambda direction: factor * direction, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _in_float32(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """`inner` with half-precision gradients and parameters seen as float32, so that its state is float32."""

    def widen(tree):
        return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

    def update(grads, state, params=None, **extra):
        return inner.update(widen(grads), state, widen(params), **extra)

    return optax.GradientTransformationExtraArgs(lambda params: inner.init(widen(params)), update)


def _parse_scale(text: str) -> tuple[str, float]:
    pattern, _, factor = text.rpartition("=")
    try:
        value = float(factor)
    except ValueError:
        value = -1.0
    if not pattern or not 0 <= value < float("inf"):
        raise InputError(
            f"--learning_rate_scales: '{text}' is not pattern=factor with a factor of at least 0, such as Dense_0=0.1."
        )
    return pattern, value
