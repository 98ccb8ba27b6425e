"""Whether a JSON object has certain members, told by the decoder that reads the object anyway.

Searching a body for keys costs more than the rest of what is done for a call's privacy. So the names with which
redacted paths begin are added to the struct that a body is decoded into: an object that has none of them is one that
no path leads into, however its keys are escaped or repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, TypeVar, cast

import msgspec

Decoded = TypeVar("Decoded", bound=msgspec.Struct)

_ABSENT: Final = msgspec.Raw()


def reader(base: type[Decoded], names: Iterable[str]) -> Callable[[bytes], Decoded]:
    """A decoder of JSON objects into ``base``, or a struct of its fields and one for each other of ``names``."""
    declared = {each.encode_name for each in msgspec.structs.fields(base)}
    noted = [
        (_attribute(name), msgspec.Raw, msgspec.field(name=name, default=_ABSENT))
        for name in sorted(set(names) - declared)
    ]
    kind = msgspec.defstruct(base.__name__, noted, bases=(base,), gc=False) if noted else base
    return cast("Callable[[bytes], Decoded]", msgspec.json.Decoder(kind).decode)


def lacks(base: type[Decoded], names: Iterable[str]) -> Callable[[Decoded], bool]:
    """A test for what :func:`reader` gave, with the same names or more: whether it has none of ``names``, or of those
    that are fields of ``base`` nothing but ``null``.
    """
    declared = {each.encode_name: each.name for each in msgspec.structs.fields(base)}
    wanted = sorted(set(names))
    values = attrgetter(*[declared.get(name) or _attribute(name) for name in wanted])
    nothing = values(reader(base, wanted)(b"{}"))
    return lambda decoded: bool(values(decoded) == nothing)


def _attribute(name: str) -> str:
    return f"has_{name.encode().hex()}"
