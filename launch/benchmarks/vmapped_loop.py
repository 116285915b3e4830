"""Many trials as one writes them by hand in JAX: python -m launch.benchmarks.vmapped_loop DATA STEPS CORES

Trains MLPs 64-64 by Adam with a cosine schedule, all trials as one program, split over the cores, and prints loss and
accuracy on the test split. DATA is an .npz of the splits, standardised, and of the trials
(`launch.benchmarks.sweep.write_data`).
"""

import json
import math
import os
import sys
import time

import numpy as np

BATCH_SIZE = 64


def train(path: str, steps: int) -> dict:
    """Trains all trials.

    Returns:
      compiling, training: seconds.
      first_loss: of each trial, the training loss, mean over the first 50 steps.
      loss, accuracy: of each trial, on the test split after the last step.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from jaxdl.models.mlp import MLP

    with np.load(path) as file:
        data = dict(file)
    rates, seeds = data["learning_rate"].astype(np.float32), data["seed"].astype(np.uint32)
    images, labels = jnp.asarray(data["train_inputs"]), jnp.asarray(data["train_labels"])
    order = {seed: batches(len(labels), int(seed), steps) for seed in set(seeds)}
    rows = np.stack([order[seed] for seed in seeds])
    model = MLP(widths=(64, 64))

    def cross_entropy(params, images, labels):
        logits = model.apply({"params": params}, images, train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits.argmax(-1) == labels).mean()

    def init(seed):
        key = jax.random.fold_in(jax.random.key(seed), 0)
        return model.init(key, images[:1], train=False)["params"]

    def trial(params, rate, rows):
        optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

        def step(carry, chosen):
            params, state = carry
            (loss, _), slope = jax.value_and_grad(cross_entropy, has_aux=True)(params, images[chosen], labels[chosen])
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(params, updates), state), loss

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), rows)
        loss, accuracy = cross_entropy(params, data["test_inputs"], data["test_labels"])
        return {"first_loss": losses[:50].mean(), "loss": loss, "accuracy": accuracy}

    devices = jax.devices()[: math.gcd(len(jax.devices()), len(seeds))]
    places = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, "trials"), jax.sharding.PartitionSpec("trials"))
    began = time.monotonic()
    # One after the other: random numbers drawn under vmap compile for seconds.
    params = jax.jit(lambda seeds: jax.lax.map(init, seeds))(seeds)
    given = jax.device_put((params, rates, rows), places)
    compiled = jax.jit(jax.vmap(trial)).lower(*given).compile()
    compiling, began = time.monotonic() - began, time.monotonic()
    results = jax.device_get(compiled(*given))
    measured = {"compiling": compiling, "training": time.monotonic() - began}
    return measured | {name: values.tolist() for name, values in results.items()}


def batches(examples: int, seed: int, steps: int) -> np.ndarray:
    """The rows of each step: epochs without a gap, each a new permutation. int [steps, BATCH_SIZE]."""
    epochs = math.ceil(steps * BATCH_SIZE / examples)
    order = np.concatenate([np.random.default_rng((seed, epoch)).permutation(examples) for epoch in range(epochs)])
    return order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE).astype(np.int32)


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[3]}"  # each core is a device
    print(json.dumps(train(sys.argv[1], int(sys.argv[2]))))
