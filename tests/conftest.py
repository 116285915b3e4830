"""Every test runs on eight simulated devices, with rank promotion raising, and with one compilation cache.

The cache is a folder of the user's, so that the second run of the suite, and its parallel workers, compile little.
"""

import os
import pathlib
import tempfile

flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # tests compile much more than they compute
CACHE = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "jaxdl-tests-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import gc  # noqa: E402  (JAX reads the environment when it is imported)
import sys  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402


def pytest_configure(config):
    """What others wrote is held against the programs that users run."""
    if config.getoption("markexpr") == "reference":
        jax.config.update("jax_disable_most_optimizations", False)


def pytest_collection_modifyitems(items):
    """The files that start processes come first: last, one worker would be idle while the other waits for them."""
    items.sort(key=lambda item: item.path.parent.name not in ("train", "launch"))


def pytest_collection_finish(session):
    """What importing has made stays: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _forget():
    """Programs of a module go with it, or a worker's memory grows to several GiB."""
    yield
    jax.clear_caches()


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """`write_module(name, source)`: a module in tmp_path, which this test alone can import."""
    monkeypatch.syspath_prepend(tmp_path)
    written = set()

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        written.add(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)  # or the next test that writes this name would get this test's
