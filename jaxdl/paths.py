"""Parameters by path: a parameter's keys joined by slashes, such as `Dense_0/kernel`.

A pattern of paths is a shell pattern (`fnmatch`, in which * matches slashes too). It matches a parameter, or a
module with all that is in it: `Dense_0/kernel`, `Dense_0`, `*/bias`.
"""

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax

from jaxdl.catalog import nearest
from jaxdl.errors import InputError


def map_paths(function: Callable[[str, Any], Any], tree):
    """`jax.tree.map` of `function(path, leaf)`."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: function(jax.tree_util.keystr(keys, simple=True, separator="/"), leaf), tree
    )


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether any of the patterns matches the path or a module above it."""
    return any(fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern + "/*") for pattern in patterns)


def check_patterns(flag: str, patterns: Iterable[str], tree) -> None:
    """Raises InputError where a pattern of `--flag` matches no leaf of the tree."""
    paths = jax.tree.leaves(map_paths(lambda path, leaf: path, tree))
    for pattern in patterns:
        if not any(matches(path, [pattern]) for path in paths):
            modules = {path.rpartition("/")[0] for path in paths} - {""}
            hint = nearest(pattern, [*paths, *sorted(modules)]) or f" There are, for example, {', '.join(paths[:4])}."
            raise InputError(f"--{flag}: no parameter matches '{pattern}'.{hint}")


def weight_mask(params, which: Literal["kernels", "all"]):
    """Which parameters decay and are penalised: a tree of bools.

    `kernels` are the arrays of two or more dimensions whose own name is not bias or scale. The name matters where
    those have more dimensions too: the biases of attention heads, layers stacked by a scan. Embeddings are in.
    """

    def decays(path, array):
        return which == "all" or (array.ndim >= 2 and path.rpartition("/")[2] not in ("bias", "scale"))

    return map_paths(decays, params)
