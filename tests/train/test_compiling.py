"""Programs that several processes need are compiled once, and nobody waits for one that is dead or hangs."""

import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from jaxdl.train import compiling

COMPILES = """
import json, os, sys, time
import jax, jax.numpy as jnp
from jaxdl.train.compiling import compile_all

jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
counts = {"hits": 0, "misses": 0}
def count(event, **_):
    for name in counts:
        counts[name] += event.endswith(f"compilation_cache/cache_{name}")
jax.monitoring.register_event_listener(count)

def program(power):
    return jax.jit(lambda x: sum(jnp.sin(x * k) ** power for k in range(20))).lower(jnp.arange(4.0))

programs = [program(power) for power in (2, 3, 4, 5)]
open(os.path.join(sys.argv[1], f"ready{os.getpid()}"), "w").close()
while len([name for name in os.listdir(sys.argv[1]) if name.startswith("ready")]) < 2:
    time.sleep(0.01)
counts.update(hits=0, misses=0)  # of what making the arguments took
compiled = compile_all(programs)
told = dict(counts)
print(json.dumps([told, [float(each(jnp.ones(4))[0]) for each in compiled]]))
"""

HOLDS = """
import sys, time
import jax
from jaxdl.train.compiling import _Claims
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
with _Claims() as claims:
    for place in map(int, sys.argv[2:]):
        assert claims.take(place)
    print("holds", flush=True)
    time.sleep(600)
"""


def lowered(factor):
    return jax.jit(lambda x: jnp.cos(x) * factor).lower(jnp.arange(3.0))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield str(tmp_path)
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def holder(cache):
    """Starts a process that says it compiles these programs."""
    children = []

    def start(*programs):
        places = [str(compiling._place(program)) for program in programs]
        child = subprocess.Popen([sys.executable, "-c", HOLDS, cache, *places], stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout.readline() == "holds\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def test_two_processes_compile_each_program_once(tmp_path):
    command = [sys.executable, "-c", COMPILES, str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(child.communicate(timeout=120)[0].splitlines()[-1]) for child in children]
    assert told[0][1] == told[1][1]
    assert sum(counts["misses"] for counts, _ in told) == 4
    assert sum(counts["hits"] for counts, _ in told) == 4
    assert all(counts["misses"] for counts, _ in told)  # both had work


def test_what_comes_later_is_compiled_while_another_compiles_what_is_needed(holder):
    needed, later = [lowered(2.0), lowered(3.0)], []
    child = holder(needed[0])

    def meanwhile():
        later.append(lowered(5.0))
        child.kill()
        return later[0]

    compiled = compiling.compile_all(needed, [meanwhile])
    assert len(later) == 1
    assert [float(each(jnp.zeros(3))[0]) for each in compiled] == [2.0, 3.0]


def test_nothing_is_compiled_meanwhile_when_nobody_is_waited_for(cache):
    [compiled] = compiling.compile_all([lowered(7.0)], [lambda: pytest.fail("there was no need")])
    assert float(compiled(jnp.zeros(3))[0]) == 7.0


def test_a_process_that_hangs_is_not_waited_for_for_ever(holder, monkeypatch):
    monkeypatch.setattr(compiling, "MOST_SECONDS", 0.3)
    program = lowered(11.0)
    holder(program)
    began = time.monotonic()
    [compiled] = compiling.compile_all([program])
    assert time.monotonic() - began >= 0.3
    assert float(compiled(jnp.zeros(3))[0]) == 11.0


def test_without_a_folder_that_can_be_written_everybody_compiles(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "file").write_text("")
    try:
        for folder in (None, str(tmp_path / "file" / "below")):
            jax.config.update("jax_compilation_cache_dir", folder)
            with compiling._Claims() as claims:
                assert claims.take(1) and claims.take(1)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
