"""A model can be imported alone, and its example runs."""

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import jaxdl.layers
import jaxdl.models

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (jaxdl.layers, jaxdl.models)
    for module in pkgutil.iter_modules(package.__path__)
]
MODEL_FILES = sorted({entry.module for entry in jaxdl.models.MODELS.values()})
LAYER_FILES = [name for name in MODULES if name.startswith("jaxdl.layers.")]


def loaded_by(code):
    """Names of the modules that a fresh interpreter has after `code`, standard library apart."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    return {name for name in json.loads(output) if name.partition(".")[0] not in sys.stdlib_module_names}


@pytest.fixture(scope="module")
def jax_and_flax():
    return {name.partition(".")[0] for name in loaded_by("import jax, flax.linen")}


@pytest.mark.parametrize(
    "code", ["from jaxdl.models.resnet import ResNet", "import " + ", ".join(LAYER_FILES + MODEL_FILES)]
)
def test_models_bring_jax_and_flax_along_and_nothing_else(code, jax_and_flax):
    loaded = loaded_by(code)
    assert {name.partition(".")[0] for name in loaded} - jax_and_flax == {"jaxdl"}
    own = {name for name in loaded if name.startswith("jaxdl.")}
    floors = ("jaxdl.models", "jaxdl.layers", "jaxdl.catalog", "jaxdl.errors", "jaxdl.types")
    assert {name for name in own if not name.startswith(floors)} == set()


def test_the_catalog_of_models_imports_no_model():
    loaded = loaded_by("import jaxdl.models")
    assert {name.partition(".")[0] for name in loaded}.isdisjoint({"jax", "flax", "numpy"})
    assert not any(name.startswith("jaxdl.models.") for name in loaded)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
    # Every file of models shows how to use one.
    assert results.attempted >= 2 or name not in MODEL_FILES


def test_example_of_create():
    results = doctest.testmod(jaxdl.models)
    assert results.attempted > 0 and results.failed == 0
