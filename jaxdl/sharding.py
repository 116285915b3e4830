"""Where a run's arrays live, and how its pure functions run on several devices and hosts.

A `Placement` is a named mesh and a mode. The mode changes nothing in the result: `jit` lets the compiler split the
global computation, `shard_map` and `pmap` run it a shard at a time, with the sums that
`jaxdl.layers.batch_axis` asks for. Everything but the batch is replicated; logical axis rules for parameters
belong here when they come.
"""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdl.errors import InputError
from jaxdl.layers.batch_axis import batch_context

DATA = "data"
"""The mesh axis over which a batch is split."""

PER_RUN = "per run"
"""The place of an argument or result that belongs to the run: its state, its metrics."""


def initialize_distributed(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run, when flags or the environment say that there are any.

    What no flag gives is read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. With none of these
    `jax.distributed` finds its cluster by itself: under Slurm or Open MPI with several tasks, or on a TPU pod.

    Raises:
      InputError: some of the three are given and not all, or they do not fit.
    """
    given = {
        "coordinator_address": coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "num_processes": _whole_number(num_processes, "JAX_NUM_PROCESSES"),
        "process_id": _whole_number(process_id, "JAX_PROCESS_ID"),
    }
    if any(value is not None for value in given.values()):
        if any(value is None for value in given.values()):
            raise InputError("--coordinator_address, --num_processes and --process_id go together; give all three.")
        if given["process_id"] >= given["num_processes"]:
            raise InputError(f"--process_id={given['process_id']}: expected less than {given['num_processes']}.")
        _initialize(**given)
        return
    tasks = max(int(os.environ.get(name) or 1) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    if tasks > 1 or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        _initialize()


def _whole_number(value: int | None, variable: str) -> int | None:
    text = os.environ.get(variable)
    if value is not None or text is None:
        return value
    if not text.isdigit():
        raise InputError(f"{variable}={text} in the environment: expected a whole number.")
    return int(text)


def _initialize(**given) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(**given)


def make_mesh(spec: str, devices=None) -> Mesh:
    """The mesh that `--mesh` says: `data:8`, or `data` (or nothing) for all devices.

    Raises:
      InputError: another axis than `data`, or a size that the devices do not have.
    """
    devices = list(jax.devices() if devices is None else devices)
    name, _, size = (spec or DATA).partition(":")
    if name != DATA or (size and not size.isdigit()):
        raise InputError(f"--mesh={spec}: expected {DATA}:N with N devices, or {DATA} for all of them.")
    count = int(size) if size else len(devices)
    if not 1 <= count <= len(devices) or (jax.process_count() > 1 and count != len(devices)):
        raise InputError(
            f"--mesh={spec}: there are {len(devices)} devices ({devices[0].device_kind}); "
            "expected at most that, and all of them with several processes."
        )
    return Mesh(np.asarray(devices[:count]), (DATA,), axis_types=(AxisType.Auto,))


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh and the mode in which a step runs over it: `jit`, `shard_map` or `pmap`."""

    mesh: Mesh
    mode: str = "jit"

    def __post_init__(self):
        if self.mode == "pmap" and jax.process_count() > 1:
            raise InputError("--parallelism=pmap runs in one process; with several, use jit or shard_map.")

    @property
    def num_shards(self) -> int:
        return self.mesh.shape[DATA]

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def per_run(self) -> NamedSharding:
        """The sharding of what belongs to the run."""
        return self.replicated

    @property
    def evaluation_axis(self) -> int | None:
        """The axis along which an evaluation batch is split; None: it is replicated."""
        return 0

    def split(self, axis: int = 0) -> NamedSharding:
        """The sharding of an array whose `axis` is the batch."""
        return NamedSharding(self.mesh, PartitionSpec(*([None] * axis), DATA))

    def check_batch(self, name: str, size: int, microbatches: int = 1) -> None:
        """Raises: InputError, when a global batch of `size` rows cannot be split evenly."""
        if size % (self.num_shards * microbatches):
            parts = f"{self.num_shards} devices" + (f" x {microbatches} microbatches" if microbatches > 1 else "")
            step = self.num_shards * microbatches
            near = max(step, size // step * step)
            raise InputError(
                f"--{name}={size} does not divide by {parts}; "
                f"--{name}={near} would, and so would --{name}={near + step}."
            )

    def local_rows(self, batch_size: int) -> slice:
        """The rows of a global batch that this process reads: those of its own devices, contiguous."""
        index_of = self.split().addressable_devices_indices_map((batch_size,))
        bounds = [index[0].indices(batch_size)[:2] for index in index_of.values()]
        return slice(min(low for low, _ in bounds), max(high for _, high in bounds))

    def replicate(self, tree):
        """A tree on every device of the mesh. Host values must be the same in every process."""
        return jax.device_put(tree, self.replicated)

    def place_batch(self, tree, axis: int | None = 0):
        """This process's rows of a batch as global arrays, split over the devices along `axis`, or replicated."""
        sharding = self.replicated if axis is None else self.split(axis)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)

    def parallel(
        self, function: Callable, places: tuple[int | str | None, ...], donate: tuple[int, ...] = ()
    ) -> Callable:
        """Compiles a pure function of a run's state and its batches for the devices; its results are PER_RUN.

        Args:
          function: arrays to arrays; under `shard_map` and `pmap` it is traced for one shard, with `batch_context`
            naming the mapped axis.
          places: for each argument, the axis along which it is split as a batch is, PER_RUN, or None: replicated.
          donate: the arguments whose memory may be used again.

        Returns:
          A jitted function of the same arguments.
        """
        batch_axes = tuple(None if place == PER_RUN else place for place in places)
        shardings = tuple(self.replicated if axis is None else self.split(axis) for axis in batch_axes)
        if self.mode == "jit":
            return jax.jit(function, in_shardings=shardings, out_shardings=self.replicated, donate_argnums=donate)

        def shard(*arguments):
            with batch_context(axis_name=DATA):
                return function(*arguments)

        if self.mode == "shard_map":
            specs = tuple(sharding.spec for sharding in shardings)
            mapped = jax.shard_map(shard, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
            return jax.jit(mapped, in_shardings=shardings, out_shardings=self.replicated, donate_argnums=donate)
        return functools.partial(self._call_pmap, self._pmapped(shard, batch_axes), batch_axes)

    def _pmapped(self, shard: Callable, batch_axes):
        devices = list(self.mesh.devices.flat)
        return jax.pmap(shard, DATA, in_axes=batch_axes, out_axes=None, devices=devices)

    def _call_pmap(self, mapped: Callable, batch_axes, *arguments):
        """Gives each argument its leading device axis, and puts the results where the other modes leave them."""

        def stack(x, axis):
            shape = (*x.shape[:axis], self.num_shards, x.shape[axis] // self.num_shards, *x.shape[axis + 1 :])
            return np.asarray(x).reshape(shape)

        stacked = [
            argument if axis is None else jax.tree.map(lambda x: stack(x, axis), argument)
            for argument, axis in zip(arguments, batch_axes, strict=True)
        ]
        return self.replicate(mapped(*stacked))


class TrialPlacement(Placement):
    """A mesh over which trials are split, and not their batches: each device trains its own, and none asks another."""

    @property
    def per_run(self) -> NamedSharding:
        return self.split()

    @property
    def evaluation_axis(self) -> None:
        return None

    def local_rows(self, batch_size: int) -> slice:
        return slice(None)

    def parallel(self, function, places, donate=()):
        shardings = tuple(
            self.replicated if place is None else self.split(0 if place == PER_RUN else place) for place in places
        )
        specs = tuple(sharding.spec for sharding in shardings)
        mapped = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=self.per_run.spec, check_vma=False)
        return jax.jit(mapped, in_shardings=shardings, out_shardings=self.per_run, donate_argnums=donate)
