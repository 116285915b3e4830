"""Eight simulated devices for the layers that must not notice them."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxdl.layers.batch_axis import batch_context

NUM_DEVICES = 8


@pytest.fixture
def whole_and_sharded():
    """(function, batch) -> its result under jit, and of the batch's eight shards under shard_map, put together.

    With `replicated`, every shard gives the same result, and it is of the whole batch.
    """

    def run(function, batch, replicated=False):
        def shard(rows):
            with batch_context(axis_name="data"):
                return function(rows)

        assert jax.device_count() >= NUM_DEVICES, "needs XLA_FLAGS=--xla_force_host_platform_device_count=8"
        mesh = Mesh(np.array(jax.devices()[:NUM_DEVICES]), ("data",))
        rows = PartitionSpec("data")
        sharded = jax.shard_map(shard, mesh=mesh, in_specs=rows, out_specs=PartitionSpec() if replicated else rows)
        return jax.jit(function)(batch), jax.jit(sharded)(batch)

    return run
