"""Names to things: plain dictionaries, written out, whose entries import nothing until one is chosen."""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from jaxdl.errors import InputError


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a name's dataclass lives, and which of its fields this name sets.

    `module` and `attribute` say where (`jaxdl.models.resnet`, `ResNet`); `fields` are the defaults that make
    a named size (`resnet50`); `input_shape` is, for models, the shape of one example that the paper uses (of several
    inputs, a tuple of their shapes) and `input_dtype` its dtype: float32, or int32 for tokens (where several inputs
    differ, a tuple of their dtypes). Of `graph` networks the shape is nodes, edges, and the features of both.
    """

    module: str
    attribute: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    input_shape: tuple | None = None
    input_dtype: str | tuple[str, ...] = "float32"

    def load(self) -> type:
        """The dataclass itself; this is what imports its module."""
        return getattr(importlib.import_module(self.module), self.attribute)


def nearest(name: str, names) -> str:
    """` Did you mean 'x'?`, or nothing when no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def find(catalog: Mapping[str, Entry], name: str, kind: str) -> Entry:
    """The entry of that name. `package.module:Attribute` names a dataclass of one's own, outside the catalog.

    Raises:
      InputError: no such name; the message offers the nearest one.
    """
    if name in catalog:
        return catalog[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        entry = Entry(module, attribute)
        try:
            loaded = entry.load()
        except ImportError as error:
            raise InputError(f"{kind} '{name}': cannot import {module} ({error}). Is it on PYTHONPATH?") from None
        except AttributeError:
            raise InputError(f"{kind} '{name}': module {module} has no {attribute}.") from None
        if not (isinstance(loaded, type) and dataclasses.is_dataclass(loaded)):
            raise InputError(f"{kind} '{name}': {attribute} is not a dataclass or a Flax module class.")
        return entry
    raise InputError(
        f"no {kind} is called '{name}'.{nearest(name, catalog)} "
        f"`python -m launch.catalog {kind}s` lists them; one of your own is 'package.module:Class'."
    )
