"""Loss functions: pure, one number for each example, so that a caller can weigh and average them as it needs.

Shapes: B examples, C classes, T regression targets. Predictions and losses are float32.
Optax has more of them (`optax.losses`); here are those that tasks share, with what Optax leaves to the caller:
label smoothing of integer labels, class weights, and NaN for a label that is not below C.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_gather, batch_sum, gathered_positions


def _is_zero(value) -> bool:
    """Whether a term can be left out. A traced value never can: it may be zero for one trial of a sweep only."""
    return isinstance(value, (int, float)) and value == 0


def _of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    """`values[..., labels]`: [...] from [..., C]. NaN where a label is C or more."""
    return jnp.take_along_axis(values, labels[..., None], axis=-1)[..., 0]


def softmax_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    label_smoothing: float | jax.Array = 0.0,
    class_weights: tuple[float, ...] | jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy between smoothed labels and the softmax of the logits.

        loss = -sum_c w_c q_c log softmax(logits)_c     q_c = (1 - eps) [c = label] + eps / C

    Label smoothing: Szegedy et al. 2016, Rethinking the Inception architecture (arXiv 1512.00567), section 7.

    Args:
      logits: float [..., C].
      labels: int [...], in 0 .. C - 1.
      label_smoothing: eps in [0, 1]; may be traced.
      class_weights: w, [C]; None means ones.

    Returns:
      [...], in nats.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    if class_weights is not None:
        weights = jnp.asarray(class_weights, logits.dtype)
        log_probabilities = log_probabilities * weights.reshape((1,) * (logits.ndim - 1) + weights.shape)
    cross_entropy = -_of_label(log_probabilities, labels)
    if _is_zero(label_smoothing):
        return cross_entropy
    return (1 - label_smoothing) * cross_entropy - label_smoothing * log_probabilities.mean(axis=-1)


def sigmoid_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float | jax.Array = 0.0) -> jax.Array:
    """Cross-entropy between labels and the sigmoid of the logits, elementwise: `softmax_cross_entropy` of (0, logit).

        loss = -q log sigmoid(logit) - (1 - q) log sigmoid(-logit)     q = (1 - eps) label + eps / 2

    Args:
      logits: float, any shape: log odds of the label being 1.
      labels: the same shape, 0 or 1 (or a probability).
      label_smoothing: eps in [0, 1]; may be traced.

    Returns:
      the same shape, in nats.
    """
    return optax.sigmoid_binary_cross_entropy(logits, (1 - label_smoothing) * labels + label_smoothing / 2)


def perceptron(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """How far the highest score is above the label's: max_c s_c - s_label; zero where the prediction is right.

    Its gradient is the perceptron's update: Rosenblatt 1958, The perceptron (two classes, scores (0, s));
    Collins 2002, Discriminative training methods for hidden Markov models (more classes).

    Args:
      scores: float [B, C].
      labels: int [B].

    Returns:
      [B].
    """
    return scores.max(axis=-1) - _of_label(scores, labels)


def hinge(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The margin by which the label's score fails to be 1 above all others: max_c (s_c + [c != label]) - s_label.

    Crammer and Singer 2001, On the algorithmic implementation of multiclass kernel-based vector machines;
    with two classes and scores (0, s) it is the hinge max(0, 1 - y s), y = -1 or 1.

    Args:
      scores: float [B, C].
      labels: int [B].

    Returns:
      [B].
    """
    others = jnp.arange(scores.shape[-1])[None, :] != labels[:, None]
    return (scores + others).max(axis=-1) - _of_label(scores, labels)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over the targets of (prediction - target)^2: [B] from [B, T]. Without the factor 1/2."""
    return optax.squared_error(predictions, targets).mean(axis=-1)


def absolute_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over the targets of |prediction - target|: [B] from [B, T]."""
    return jnp.abs(predictions - targets).mean(axis=-1)


def huber(predictions: jax.Array, targets: jax.Array, delta: float | jax.Array = 1.0) -> jax.Array:
    """Mean over the targets of the Huber loss: [B] from [B, T].

        loss = e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2)     e = prediction - target

    Huber 1964, Robust estimation of a location parameter. `delta`, in the targets' units, may be traced.
    """
    return optax.huber_loss(predictions, targets, delta=delta).mean(axis=-1)


def batch_logits(queries: jax.Array, keys: jax.Array, weight: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Products of the rows at hand with the rows of all shards: the logits of which row of `keys` belongs to a query.

    Args:
      queries: [B, D], of this shard; row b belongs to row b of `keys`.
      keys: [B, D].
      weight: [B]; keys of weight 0 (padding) are left out, at minus infinity, but for a query's own.

    Returns:
      [B, N] for the N rows of all shards, and the labels: the place of each query's own key, int32 [B].

    Raises:
      InputError: there is one row in all, and nothing to tell it from.
    """
    logits, labels = queries @ batch_gather(keys).T, gathered_positions(len(queries))
    _check_others(logits.shape[1])
    if weight is not None:
        own = jnp.arange(logits.shape[1])[None, :] == labels[:, None]
        logits = jnp.where(own | (batch_gather(weight) > 0)[None, :], logits, -jnp.inf)
    return logits, labels


def nt_xent_logits(
    views: jax.Array, temperature: float | jax.Array = 0.5, weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cosine similarities, over the temperature, of each view to all views of the batch but itself.

    Their `softmax_cross_entropy` is the normalised, temperature-scaled cross-entropy NT-Xent of Chen et al. 2020 (arXiv
    2002.05709), eq. 1, of view i, j being the other view of the same example:

        loss_i = -log exp(s(z_i, z_j) / t) / sum_{k != i} exp(s(z_i, z_k) / t)

    The sum goes over the views of all shards; under gradient accumulation, over those of the microbatch.

    Args:
      views: projections [B, 2, D] of this shard's examples, in two views each; they need not have unit length.
      temperature: t > 0; may be traced.
      weight: [B]; examples of weight 0 are nobody's negatives.

    Returns:
      [B, 2, 2 N] for the N examples of all shards, at minus infinity where nothing is to be told from; and the labels,
      int32 [B, 2].

    Raises:
      InputError: a batch of one example.
    """
    # The root is of no less than a tiny square, so that its gradient at zero is finite.
    unit = views / jnp.sqrt(jnp.maximum(jnp.square(views).sum(axis=-1, keepdims=True), 1e-24))

    everyone, labels = batch_gather(unit), gathered_positions(len(unit))
    _check_others(len(everyone))
    # Columns of each view: the other view of all examples, and then the same view of all.
    logits = jnp.einsum("bvd,nvd->bvn", unit / temperature, jnp.concatenate([everyone[:, ::-1], everyone]))
    itself = jnp.arange(len(everyone))[None, :] == labels[:, None]
    told_from = ~itself
    if weight is not None:
        told_from &= (batch_gather(weight) > 0)[None, :]
    compared = jnp.concatenate([itself | told_from, told_from], axis=1)
    logits = jnp.where(compared[:, None], logits, -jnp.inf)
    return logits, jnp.broadcast_to(labels[:, None], views.shape[:2])


def _check_others(num_examples: int) -> None:
    """Raises InputError where a contrastive loss has nothing to tell its one example from."""
    if num_examples < 2:
        raise InputError(
            "a contrastive loss compares an example with the others of its batch, or microbatch, and there are none in "
            "one of a single example: raise --batch_size, or --eval_batch_size where it is given."
        )


def normal_divergence(mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """KL(N(mean, std^2) || N(0, 1)) of independent components, in nats: [...] from [..., D].

        sum_d (mean_d^2 + std_d^2 - 1) / 2 - log std_d

    Kingma and Welling 2014, Auto-encoding variational Bayes (arXiv 1312.6114), appendix B.
    """
    return ((jnp.square(mean) + jnp.exp(2 * log_std) - 1) / 2 - log_std).sum(axis=-1)


def share_of_mean(losses: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """This shard's share of the weighted mean over the global batch; summed over shards it is that mean.

        share = sum_b w_b l_b / batch_sum(sum_b w_b)

    Args:
      losses: [B], or of tokens, [B, T].
      weight: of the same shape; None means ones.

    Returns:
      a scalar: under `jit`, where the shard is the whole batch, the mean itself.
    """
    if weight is None:
        weight = jnp.ones_like(losses)
    return jnp.sum(weight * losses) / batch_sum(jnp.sum(weight))


def kernels_only(params):
    """The default mask of `penalty`: True for arrays of two or more dimensions, False for biases and scales."""
    return jax.tree.map(lambda param: jnp.ndim(param) >= 2, params)


def penalty(
    params,
    l1: float | jax.Array = 0.0,
    l2: float | jax.Array = 0.0,
    mask: Callable | dict | None = None,
) -> jax.Array:
    """The elastic net: l1 sum |w| + l2 / 2 sum w^2. Zou and Hastie 2005, Regularization and variable selection.

    With l1 = 0 it is ridge regression's or a Gaussian prior's term, with l2 = 0 the lasso's. Unlike decoupled
    weight decay it is part of the loss, so an adaptive optimizer rescales its gradient.

    Args:
      params: a tree of arrays.
      l1, l2: at least 0; may be traced.
      mask: a tree of bools like `params`, or a function from `params` to one; None means `kernels_only`.

    Returns:
      a float32 scalar.
    """
    if mask is None:
        mask = kernels_only
    if callable(mask):
        mask = mask(params)
    kept = [
        param.astype(jnp.float32)
        for param, keep in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)
        if keep
    ]
    total = jnp.zeros((), jnp.float32)
    if not _is_zero(l1):
        total += l1 * sum(jnp.abs(param).sum() for param in kept)
    if not _is_zero(l2):
        total += l2 / 2 * sum(jnp.square(param).sum() for param in kept)
    return total
