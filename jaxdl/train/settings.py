"""The trainer's own flags."""

import dataclasses
from typing import Literal

from jaxdl.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed

CHANGEABLE = {
    *("steps", "epochs", "flops_budget", "flops_rule", "branch_from", "branch_step", "keep_checkpoints", "patience"),
    *("eval_batch_size", "log_every", "progress", "tensorboard", "plots", "profile_steps", "watchdog_seconds"),
    *("data_dir", "prefetch", "data_threads", "data_workers", "steps_per_dispatch", "compilation_cache"),
    *("mesh", "parallelism", "coordinator_address", "num_processes", "process_id"),
}
"""Flags with which a run may be continued although they differ from those it began with."""

LENGTHS = ("steps", "epochs", "flops_budget")
"""Flags that say how long a run is; the one given last counts."""

NOT_RECORDED = ("workdir", "coordinator_address", "num_processes", "process_id")
"""Flags that say where a run lives, not what it is: they are not in its flags.txt."""


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """How long, how fast, in what precision and on what a run trains, and what it writes down.

    Attributes:
      workdir: The run directory; a new one under runs/ when empty. One that exists is continued.
      data_dir: Folder of the prepared TFDS datasets, or of the dataset's files.
      initialize_from: A run directory, or a .safetensors file, whose parameters the run begins with: all top-level
        parts that both models have. A run that is continued has its own checkpoint.
      branch_from: A run directory whose first steps this run takes over instead of making them again: to the bit the
        same run, at another length, as long as the learning rate was the same (schedule wsd before its decay).
      branch_step: The step of branch_from's checkpoint to go on from.
      seed: Seed of everything random: initialisation, order of examples, augmentation, dropout.
      steps: Length of the run in steps.
      epochs: Length of the run in passes over the training split.
      flops_budget: Length of the run in training FLOPs, as many steps as they pay for; of steps, epochs and
        flops_budget the one given last counts.
      flops_rule: What a step costs of flops_budget: products, the matrix products and convolutions that it makes; or
        6nd, six for each parameter and token (each example, where the data have no length).
      batch_size: Examples in a step, over all devices and hosts.
      eval_batch_size: Examples in an evaluation batch; the training batch size if none.
      log_every: Steps between lines of training metrics, each the mean since the line before.
      eval_every: Steps between evaluations; if none, once an epoch, or every log_every steps where that is longer.
      checkpoint_every: Steps between checkpoints; with each evaluation if none (of trials that train together, at
        most each five seconds). A new best is always kept.
      keep_checkpoints: How many of the latest checkpoints are kept, beside the best.
      patience: Stop after so many evaluations in a row without a better validation metric.
      precision: What the model computes with; parameters and optimizer state are float32 always.
      remat: Recompute activations in the backward pass, for less memory.
      gradient_accumulation: Split each batch into so many microbatches, for less memory.
      on_nonfinite: On a loss or gradient that is not finite: halt; skip the update; rollback to the last checkpoint
        and leave out the batches since; or ignore.
      data_mode: Keep the training split on the device, feed it from the host, or choose by its size.
      prefetch: Batches read ahead, when fed from the host.
      data_threads: Threads that read examples.
      data_workers: Processes that read examples; 0 reads in this one.
      steps_per_dispatch: The most steps that one dispatch runs, when the data is on the device; if none, up to 100, as
        many as take a quarter of a second, and 1 for convolutions on a CPU, which XLA makes slow in a loop.
      mesh: Devices and their axis, such as data:8; all devices if empty.
      parallelism: How the step is spread over the mesh; the numbers do not depend on it.
      coordinator_address: Host and port of process 0, for a run of several processes.
      num_processes: How many processes the run has.
      process_id: Which of them this is.
      compilation_cache: Folder that keeps compiled programs between runs; auto is JAX_COMPILATION_CACHE_DIR, else
        ~/.cache/jaxdl; none is no cache.
      profile_steps: First and last step of a profile, written to profile/, such as 10,20.
      watchdog_seconds: Say where the run hangs after so long without progress; 0 never.
      progress: Show a progress bar; auto shows it in a terminal.
      tensorboard: Write TensorBoard event files.
      plots: Draw the plots at the end.
    """

    workdir: str = ""
    data_dir: str = "~/tensorflow_datasets"
    initialize_from: str | None = None
    branch_from: str | None = None
    branch_step: PositiveInt | None = None
    seed: Seed = 0
    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    flops_budget: PositiveFloat | None = None
    flops_rule: Literal["products", "6nd"] = "products"
    batch_size: PositiveInt = 64
    eval_batch_size: PositiveInt | None = None
    log_every: PositiveInt = 50
    eval_every: PositiveInt | None = None
    checkpoint_every: PositiveInt | None = None
    keep_checkpoints: PositiveInt = 2
    patience: PositiveInt | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    remat: bool = False
    gradient_accumulation: PositiveInt = 1
    on_nonfinite: Literal["halt", "skip", "rollback", "ignore"] = "halt"
    data_mode: Literal["auto", "device", "host"] = "auto"
    prefetch: PositiveInt = 4
    data_threads: PositiveInt = 4
    data_workers: NonNegativeInt = 0
    steps_per_dispatch: PositiveInt | None = None
    mesh: str = ""
    parallelism: Literal["jit", "shard_map", "pmap"] = "jit"
    coordinator_address: str | None = None
    num_processes: PositiveInt | None = None
    process_id: NonNegativeInt | None = None
    compilation_cache: str = "auto"
    profile_steps: tuple[NonNegativeInt, ...] = ()
    watchdog_seconds: NonNegativeFloat = 600.0
    progress: Literal["auto", "on", "off"] = "auto"
    tensorboard: bool = True
    plots: bool = True
