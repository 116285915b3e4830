"""Ladders: transformers of one shape in many sizes, and the grids of runs that scaling laws are fitted to.

A shape keeps the aspect ratio, width over layers, and the size of a head; what is to be chosen is as good as whole
numbers allow. A grid is a list of sizes and tokens; `python -m launch.ladder` makes a sweep of one.

>>> from jaxdl.models.gpt import GPT
>>> [shape.parameters for shape in gpt_ladder(GPT(vocab_size=256, positions="rotary"), 1e5, 10, 3)]
[98480, 969120, 9874176]
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

from jaxdl.errors import InputError
from jaxdl.scaling.flops import six_nd
from jaxdl.scaling.formulas import gpt_embeddings, gpt_parameters

ASPECT_WEIGHT = 0.3
"""What a factor in the aspect ratio counts against the same factor in the number of parameters, in choosing a shape."""

# Shapes.


@dataclasses.dataclass(frozen=True)
class Shape:
    """A size of a transformer.

    Attributes:
      num_layers, num_heads, width: as the model's fields.
      parameters: of the whole model, embeddings included.
      embeddings: those of them that are embeddings, of tokens and of positions.
    """

    num_layers: int
    num_heads: int
    width: int
    parameters: int
    embeddings: int


def gpt_shape(model, parameters: float, aspect_ratio: float = 64.0, head_dim: int = 64) -> Shape:
    """The size of a GPT that has about so many parameters.

    Args:
      model: a `jaxdl.models.gpt.GPT` for everything but its size.
      parameters: how many, embeddings included.
      aspect_ratio: width over layers; GPT-3 175B has 128, GPT-2 has 64 (Kaplan et al. 2020, section 3.1: the loss
        hardly depends on it).
      head_dim: features of a head.

    Raises:
      InputError: not even one layer of one head is so small.
    """
    if parameters <= 0 or aspect_ratio <= 0 or head_dim < 1:
        raise InputError("a shape takes positive numbers of parameters, aspect ratio and features of a head.")

    def at(num_layers: int, heads: int) -> Shape:
        sized = model.clone(num_layers=num_layers, num_heads=heads, width=heads * head_dim)
        return Shape(num_layers, heads, sized.width, gpt_parameters(sized), gpt_embeddings(sized))

    def cost(shape: Shape) -> float:
        aspect = shape.width / shape.num_layers / aspect_ratio
        return abs(math.log(shape.parameters / parameters)) + ASPECT_WEIGHT * abs(math.log(aspect))

    most_layers = 2 + math.ceil(2 * (parameters / aspect_ratio**2) ** (1 / 3))
    shapes = []
    for num_layers in range(1, most_layers + 1):
        heads = _largest(lambda heads: at(num_layers, heads).parameters <= parameters)
        shapes += [at(num_layers, heads), at(num_layers, heads + 1)] if heads else []
    if not shapes:
        raise InputError(
            f"a GPT of {parameters:,.0f} parameters is too small: one layer of one head of {head_dim} features has "
            f"{at(1, 1).parameters:,}; ask for more, or for smaller heads."
        )
    return min(shapes, key=cost)


def _largest(holds: Callable[[int], bool]) -> int:
    """The largest number for which this holds, 0 where it holds for none; it holds up to some number."""
    if not holds(1):
        return 0
    low, high = 1, 2
    while holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def gpt_ladder(
    model, smallest: float, factor: float, count: int, aspect_ratio: float = 64.0, head_dim: int = 16
) -> list[Shape]:
    """Sizes of a GPT whose parameters grow by a factor; arguments as in `gpt_shape`.

    Raises:
      InputError: a factor so small that two sizes are the same shape, or a size too small.
    """
    if factor <= 1 or count < 1:
        raise InputError("a ladder takes a factor above 1, and at least one size.")
    shapes = [gpt_shape(model, smallest * factor**rung, aspect_ratio, head_dim) for rung in range(count)]
    return distinct(shapes)


def distinct(shapes: Sequence[Shape]) -> list[Shape]:
    """These sizes, from the smallest on. Raises: InputError, where two of them are the same shape."""
    for one, next_ in zip(shapes, shapes[1:]):
        if next_.parameters <= one.parameters:
            raise InputError(
                f"two sizes of the ladder are one shape, {one.num_layers} layers of width {one.width}: "
                "set them farther apart, or take smaller heads."
            )
    return list(shapes)


# Grids.


@dataclasses.dataclass(frozen=True)
class Point:
    """A run of a grid: a size, and the tokens D that it is to see."""

    shape: Shape
    tokens: float

    @property
    def flops(self) -> float:
        """Training FLOPs, 6 N D."""
        return six_nd(self.shape.parameters, self.tokens)

    def steps(self, batch_tokens: float) -> int:
        """Whole steps that its tokens make. Raises: InputError, where they are not enough for one."""
        if self.tokens < batch_tokens:
            raise InputError(
                f"{self.flops:.3g} FLOPs are {self.tokens:,.0f} tokens for {self.shape.parameters:,} parameters, and a "
                f"step takes {batch_tokens:,.0f}: give more, or leave the largest sizes out."
            )
        return int(self.tokens // batch_tokens)


def isoflop(budgets: Sequence[float], shapes: Callable[[float], Sequence[Shape]]) -> list[Point]:
    """Equal training FLOPs, 6 N D, in several sizes: the tokens follow from the size.

    Args:
      budgets: FLOPs.
      shapes: the sizes of a budget.
    """
    return [Point(shape, budget / six_nd(shape.parameters, 1)) for budget in budgets for shape in shapes(budget)]


def isotoken(tokens: Sequence[float], shapes: Sequence[Shape]) -> list[Point]:
    """Equal tokens in several sizes, for L(N)."""
    return [Point(shape, count) for count in tokens for shape in shapes]


def isoparameter(shapes: Sequence[Shape], tokens: Sequence[float]) -> list[Point]:
    """Each size for several numbers of tokens, for L(D)."""
    return [Point(shape, count) for shape in shapes for count in tokens]


@dataclasses.dataclass(frozen=True)
class Stem:
    """One long run at a constant learning rate, and the runs that branch off it to decay (`jaxdl.train.branch`).

    Attributes:
      every: steps between its checkpoints.
      branches: (step at which it branches off, steps in all) of each, from the shortest on.
    """

    every: int
    branches: tuple[tuple[int, int], ...]

    @property
    def steps(self) -> int:
        """Of the long run: to the last branch."""
        return self.branches[-1][0]


def stem(tokens: Sequence[float], batch_tokens: float, decay_fraction: float) -> Stem:
    """One run for several numbers of tokens, of each of which the last `decay_fraction` is decay.

    Branches begin at multiples of the first one's beginning, where the checkpoints are: tokens that are multiples of
    the fewest are met to a step, others to the nearest multiple.

    Raises:
      InputError: tokens too few for a step before the decay, or so near each other that branches fall together.
    """
    ordered = sorted(tokens)
    first = int((1 - decay_fraction) * ordered[0] / batch_tokens)
    if first < 1:
        raise InputError(
            f"{ordered[0]:,.0f} tokens are less than a step of {batch_tokens:,.0f} before their decay: give more."
        )
    begins = [first * round(count / ordered[0]) for count in ordered]
    if len(set(begins)) < len(begins):
        raise InputError(f"tokens of a stem are multiples of the fewest, {ordered[0]:,.0f}: set them farther apart.")
    return Stem(first, tuple((begin, math.ceil(begin / (1 - decay_fraction))) for begin in begins))


def centred_sizes(flops: float, tokens_per_parameter: float, spacing: float, count: int) -> list[float]:
    """Parameters of an IsoFLOP budget's sizes, evenly spaced in their logarithm about where N D = C / 6 is met with so
    many tokens for each parameter. A parabola through them is biased least where that is the minimum."""
    middle = math.sqrt(flops / six_nd(1, tokens_per_parameter))
    return [middle * spacing ** (rung - (count - 1) / 2) for rung in range(count)]


# Rules for learning rate and batch.


def kaplan_rate(parameters: float) -> float:
    """Adam's peak for N parameters without embeddings. Kaplan et al. 2020 (arXiv 2001.08361), eq. D.1."""
    return 0.003239 - 0.0001395 * math.log(parameters)


def deepseek(flops: float) -> tuple[float, float]:
    """AdamW's peak, and the batch in tokens, for C FLOPs. DeepSeek LLM (arXiv 2401.02954), section 3.1."""
    return 0.3118 * flops**-0.1250, 0.2920 * flops**0.3271


def step_law(parameters: float, tokens: float) -> tuple[float, float]:
    """The same for N without embeddings and D. Li et al. 2025 (arXiv 2503.04715), eq. 1."""
    return 1.79 * parameters**-0.713 * tokens**0.307, 0.58 * tokens**0.571


def inverse_width_rate(width: int, base_rate: float, base_width: int) -> float:
    """A peak that falls as 1 / width from `base_rate` at `base_width`, as Adam's for the hidden matrices does in muP
    (arXiv 2203.03466, table 3)."""
    return base_rate * base_width / width


def power_of_two(number: float) -> int:
    """The power of two that is nearest by its logarithm, at least 1."""
    return 2 ** max(0, round(math.log2(number)))
