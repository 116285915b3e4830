"""What a run ran on and with: the contents of environment.json."""

import dataclasses
import functools
import importlib.metadata
import pathlib
import platform
import subprocess
import sys

import jax

import jaxdl
from jaxdl.sharding import Placement
from jaxdl.train.program import Program

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets")


def describe(program: Program, parameters: int, placement: Placement, **measured) -> dict:
    """Versions, devices, mesh, model, parameters, and what the caller has measured. No environment variables."""
    devices = list(placement.mesh.devices.flat)
    return {
        "jaxdl": jaxdl.__version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "devices": {"kind": devices[0].device_kind, "count": len(devices), "platform": devices[0].platform},
        "processes": jax.process_count(),
        "mesh": dict(placement.mesh.shape),
        "parallelism": placement.mode,
        "model": _described(program.model),
        "parameters": parameters,
        "total_steps": program.total_steps,
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
        **measured,
    }


def _described(model) -> dict | str:
    """The model's class and hyperparameters, those that the data filled in included."""
    if not dataclasses.is_dataclass(model):
        return type(model).__name__
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in ("parent", "name")}
    return {"class": type(model).__name__} | {name: _plain(value) for name, value in fields.items()}


def _plain(value):
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # a module within the model
        return _described(value)
    return value if isinstance(value, (int, float, str, bool, tuple, type(None))) else str(value)


@functools.cache
def git_commit() -> str | None:
    """The commit of the source tree that is imported, with `+changes` where it differs; None outside a checkout."""
    folder = pathlib.Path(jaxdl.__file__).parent
    try:
        run = lambda *command: subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        commit = run("rev-parse", "HEAD")
        tracked = run("ls-files", "--error-unmatch", "__init__.py")
        return (
            commit + ("+changes" if run("status", "--porcelain", "--untracked-files=no") else "") if tracked else None
        )
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
