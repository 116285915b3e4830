"""What a layer may need to know of the global batch while it sees a part of it.

Under `jit` with shardings an array is the whole batch, and this module changes nothing. Under `shard_map` and
`pmap` a layer sees one shard, and under gradient accumulation one microbatch. The training step says so with
`batch_context`, and a layer asks for sums over the whole batch (`batch_sum`, `batch_mean`) or for random keys
that belong to an example whatever the number of devices (`example_keys`).
"""

import contextlib
import contextvars
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class BatchContext:
    """`axis_name`: the mapped axis over which the batch is split. `index` of `count`: the microbatch."""

    axis_name: str | None = None
    index: int | jax.Array = 0
    count: int = 1


_context: contextvars.ContextVar[BatchContext] = contextvars.ContextVar("batch_context", default=BatchContext())


@contextlib.contextmanager
def batch_context(**changes):
    """Traces the body with these fields of `BatchContext` changed."""
    token = _context.set(dataclasses.replace(_context.get(), **changes))
    try:
        yield
    finally:
        _context.reset(token)


def axis_name() -> str | None:
    """The mapped axis over which the batch is split, for `nn.BatchNorm(axis_name=...)`; None under `jit`."""
    return _context.get().axis_name


def batch_sum(tree):
    """Sums a tree over the shards of the batch; the identity when this is the whole batch."""
    name = axis_name()
    return tree if name is None else jax.lax.psum(tree, name)


def batch_mean(tree):
    """The mean of a tree over the shards of the batch; the identity when this is the whole batch."""
    name = axis_name()
    return tree if name is None else jax.lax.pmean(tree, name)


def batch_gather(tree):
    """The rows of all shards, in the order of the batch, on each of them; the identity when this is the whole batch.

    A gradient flows back to the shard whose row it is, from the losses of all shards.
    """
    name = axis_name()
    return tree if name is None else jax.tree.map(lambda x: jax.lax.all_gather(x, name, tiled=True), tree)


def gathered_positions(num_examples: int) -> jax.Array:
    """Where among the gathered rows (`batch_gather`) the `num_examples` rows at hand stand: int32 [num_examples]."""
    rows = jnp.arange(num_examples)
    name = axis_name()
    return rows if name is None else rows + jax.lax.axis_index(name) * num_examples


def example_positions(num_examples: int) -> jax.Array:
    """Where in the global batch the `num_examples` rows at hand stand: int32 [num_examples]."""
    context = _context.get()
    return gathered_positions(num_examples) * context.count + context.index


def example_keys(key: jax.Array, num_examples: int) -> jax.Array:
    """One random key for each row at hand: keys [num_examples], the same on any number of devices."""
    return row_keys(key, example_positions(num_examples))


def evaluation_keys(rows) -> jax.Array:
    """One random key for each row of a split, int [B]: the same at every evaluation, whatever the seed of the run."""
    return row_keys(jax.random.key(0), rows)


def row_keys(key: jax.Array, rows) -> jax.Array:
    """One key folded with each of the numbers int [B]: keys [B]."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.asarray(rows))


def fold_keys(keys: jax.Array, number) -> jax.Array:
    """Each of the keys [B] folded with one number: keys [B]."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
