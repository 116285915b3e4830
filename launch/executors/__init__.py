"""Where a sweep's runs are placed: one file an executor, all behind `base.Executor`."""

from jaxdl.catalog import Entry

EXECUTORS: dict[str, Entry] = {
    "local": Entry("launch.executors.local", "Local"),
    "vectorized": Entry("launch.executors.vectorized", "Vectorized"),
    "slurm": Entry("launch.executors.slurm", "Slurm"),
    "kubernetes": Entry("launch.executors.kubernetes", "Kubernetes"),
    "tpu_vm": Entry("launch.executors.tpu_vm", "TpuVm"),
}
