"""Values at configured JSON paths never reach the spool.

Invariant: what :meth:`Redaction.apply` gives holds no value at any of the paths, however its keys are spelled
(``"\\u0075ser"``) and how often they are repeated; where that cannot be shown, because the body is no JSON or is nested
beyond reason, it gives nothing. Every other value stays equal, and what no path leads into stays the bytes it was.

A body in which a path's last key does not occur is searched and checked to be JSON, and not taken apart. Strings are
values: JSON that is written inside a string (the arguments of a tool call) is redacted as a whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Final

import msgspec

from serving_proxy.json_path import Path, Step, parse_path, streamed_paths

REDACTION_FAILED: Final = "REDACTION_FAILED"
"""On a record whose body could not be shown to be free of what has to be redacted, and was therefore not kept."""

_REDACTED: Final = msgspec.Raw(b'"[REDACTED]"')
_MAX_DEPTH: Final = 64
_OBJECT, _ARRAY, _STRING = b'{["'
_MAY_FOLLOW_A_KEY: Final = (b":", b" ", b"\t", b"\r", b"\n")
_DONE: Final = b"[DONE]"
_LAST_EVENT: Final = b"\n\ndata: [DONE]\n\n"
_FIRST_OF_JSON: Final = b'{["-0123456789tfn'
_OTHER_FIELDS: Final = (b"event:", b"id:", b"retry:", b":")
_FIELDS: Final = (b"data:", *_OTHER_FIELDS)
_MAY_BE_ESCAPED: Final = re.compile(r'["\\/\x00-\x1f]')
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_EVENT_END: Final = re.compile(rb"((?>\r\n|\n|\r){2,})")

_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_UNREADABLE: Final[tuple[type[Exception], ...]] = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Redaction:
    """What is taken out of bodies. Raises InvalidSettings for a path that is not understood."""

    def __init__(self, paths: Iterable[str]) -> None:
        parsed = [parse_path(path) for path in paths]
        self._whole = _Rules(parsed, b"[ \t\r\n]*:")
        streamed = [also for path in parsed for also in streamed_paths(path)]
        self._streamed = _Rules(streamed, b"")
        self.members = (
            None
            if any(path[0].name is None or path[0].below for path in parsed)
            else (frozenset(path[0].name for path in parsed if path[0].name is not None))
        )
        """The members of the top level that the paths lead through; ``None`` when a path can lead through any."""
        self._last_keys = _last_keys(parsed)
        self._last_streamed_keys = _last_keys(streamed)

    def cannot_touch(self, body: bytes) -> bool:
        """Whether ``body``, which is known to be JSON, lacks the last key of every path; a quick look that may say no for
        nothing.
        """
        return _has_none(body, self._last_keys)

    def apply(self, body: bytes) -> bytes | None:
        """The body, one JSON document or the server-sent events of a stream, without the values; the same object when
        there are none, ``None`` when that cannot be told.
        """
        if not body:
            return body
        start = body[:1] if body[0] > 0x20 else body.lstrip()[:1]
        try:
            if not start or start in _FIRST_OF_JSON:
                return self._whole.document(body)
            lacks = _has_none(body, self._last_streamed_keys) or not self._streamed.root.leads_into(body)
            if lacks and _is_plain_stream(body):
                return body
            return _events(body, self._streamed)
        except _UNREADABLE:
            return None

    def hides(self, *names: str) -> bool:
        """Whether a path covers the member of the request's top level that ``names`` leads to."""
        place: _Place | None = self._whole.root
        for name in names:
            place = None if place is None else place.child(name)
            if place is not None and place.is_redacted:
                return True
        return False


def pseudonym(unit: str, key: bytes = b"") -> str:
    """A stable name for ``unit`` that does not tell it: equal units keep equal names, so that joins go on working.

    Without a ``key`` (up to 64 bytes) that is kept secret, whoever has a list of possible units can find out which it is.
    """
    return "anon-" + blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=16, key=key).hexdigest()


_Search = Callable[[bytes | msgspec.Raw], re.Match[bytes] | None]


class _Keys:
    """How the keys of paths are found in bytes."""

    def __init__(self, paths: Sequence[Path], after_key: bytes) -> None:
        self.known = frozenset(
            step.number if step.name is None else step.name for path in paths for step in path
        )
        names = sorted(name for name in self.known if isinstance(name, str))
        self.searches: dict[str, _Search] = {
            name: re.compile(b'"%b"%b' % (re.escape(name.encode()), after_key)).search
            for name in names
            if not _MAY_BE_ESCAPED.search(name)  # has other spellings
        }
        units = {
            name.encode("utf-16-be")[at : at + 2].hex() for name in names for at in range(0, 2 * len(name), 2)
        }
        self.escaped: _Search = re.compile(rb"\\u(?i:%b)" % "|".join(sorted(units)).encode()).search

    def needed(self, paths: Sequence[Path]) -> list[list[_Search]] | None:
        """The keys that must all be there for a path to lead somewhere, path by path, the last one first; ``None`` when
        a path needs none.
        """
        sets = {frozenset(step.name for step in path if step.name in self.searches): path for path in paths}
        if frozenset() in sets:
            return None
        smallest = [path for names, path in sets.items() if not any(other < names for other in sets)]
        return [
            [
                self.searches[step.name]
                for step in reversed(path)
                if step.name is not None and step.name in self.searches
            ]
            for path in smallest
        ]


class _Place:
    """What the paths say of one place in a document; made once for all places of which they say the same."""

    __slots__ = ("_below", "_keys", "_needed", "_paths", "is_redacted", "is_redacted_text")

    def __init__(self, paths: Sequence[Path], keys: _Keys) -> None:
        self._paths = paths
        self._keys = keys
        self._needed = keys.needed(paths)
        self._below: dict[str | int | None, _Place | None] = {}
        self.is_redacted = () in paths
        self.is_redacted_text = _IF_TEXT in paths

    def leads_into(self, value: bytes | msgspec.Raw) -> bool:
        """Whether the keys of a path may be in ``value``."""
        if self._needed is None:
            return True
        for searches in self._needed:
            for search in searches:
                if search(value) is None:
                    break
            else:
                return True
        return self._keys.escaped(value) is not None

    def child(self, child: str | int) -> _Place | None:
        """A member by its name, an element by its index; ``None`` when no path leads there."""
        # Names come from clients, so only those that the paths have are remembered.
        key = child if child in self._keys.known else None
        try:
            return self._below[key]
        except KeyError:
            paths = _advanced(self._paths, child)
            place = self._below[key] = _Place(paths, self._keys) if paths else None
            return place


_IF_TEXT: Final[Path] = (
    Step(number=-1, text_only=True),
)  # ends here if the value is a string; leads nowhere


def _advanced(paths: Sequence[Path], child: str | int) -> Sequence[Path]:
    found: list[Path] = []
    for path in paths:
        if not path:
            continue
        step = path[0]
        if step.below:
            found.append(path)
        leads_everywhere = step.name is None and step.number is None
        if leads_everywhere or child == (step.number if step.name is None else step.name):
            found.append(path[1:] if path[1:] or not step.text_only else _IF_TEXT)
    return tuple(dict.fromkeys(found))


class _Rules:
    """Paths, and the walk along them."""

    def __init__(self, paths: Sequence[Path], after_key: bytes) -> None:
        distinct = tuple(dict.fromkeys(paths))
        self.root = _Place(distinct, _Keys(distinct, after_key))

    def document(self, body: bytes) -> bytes:
        """One JSON document without the values. Raises one of the errors of an unreadable document."""
        raw = _check_json(body)
        return bytes(self._rewritten(raw, self.root, 0)) if self.root.leads_into(body) else body

    def _rewritten(self, value: msgspec.Raw, place: _Place, depth: int) -> msgspec.Raw:
        # What was looked into is written anew even when nothing in it was found: of a key that was there twice, only
        # the last has been looked at.
        first = memoryview(value)[0]
        if place.is_redacted or (place.is_redacted_text and first == _STRING):
            return _REDACTED
        if first not in (_OBJECT, _ARRAY) or (depth and not place.leads_into(value)):
            return value
        if depth == _MAX_DEPTH:
            raise RecursionError
        if first == _OBJECT:
            members = _decode_object(value)
            for key, child in members.items():
                below = place.child(key)
                if below is not None:
                    members[key] = self._rewritten(child, below, depth + 1)
            return msgspec.Raw(_encode(members))
        items = _decode_array(value)
        for index, child in enumerate(items):
            below = place.child(index)
            if below is not None:
                items[index] = self._rewritten(child, below, depth + 1)
        return msgspec.Raw(_encode(items))


def _last_keys(paths: Iterable[Path]) -> tuple[bytes, ...] | None:
    """The last key of each path as it stands in JSON; ``None`` when a path has none, or one with several spellings."""
    names = {next((step.name for step in reversed(path) if step.name is not None), None) for path in paths}
    plain = [name for name in names if name is not None and not _MAY_BE_ESCAPED.search(name)]
    return tuple(f'"{name}"'.encode() for name in plain) if len(plain) == len(names) else None


def _has_none(body: bytes, keys: tuple[bytes, ...] | None) -> bool:
    """Whether none of these keys occurs, in JSON that has no escapes in which they could hide."""
    if keys is None or (b"\\" in body and b"\\u" in body):
        return False
    for key in keys:
        at = body.find(key)
        while at >= 0:  # as a value it is harmless
            at += len(key)
            if body[at : at + 1] in _MAY_FOLLOW_A_KEY:
                return False
            at = body.find(key, at)
    return True


def _is_plain_stream(body: bytes) -> bool:
    """Whether the data lines of a stream are JSON, all together."""
    if not body.endswith(b"\n\n"):
        return False
    if body.startswith(b"data: "):  # as nearly always: events of one line each
        last = -len(_LAST_EVENT) if body.endswith(_LAST_EVENT) else -2
        events = body[6:last].replace(b"\n\ndata: ", b",")
        if b"\n" not in events and b"\r" not in events:
            return _is_json_list(events)
    lines: list[bytes] = []
    for line in body.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[5:])
        elif line and not line.startswith(_OTHER_FIELDS):
            return False
    if lines and lines[-1].strip() == _DONE:
        lines.pop()
    return _is_json_list(b",".join(lines))


def _is_json_list(items: bytes) -> bool:
    try:
        _check_json(b"[%b]" % items)
    except _UNREADABLE:
        return False
    return True


def _events(body: bytes, rules: _Rules) -> bytes:
    """A stream event by event. One that is no JSON makes the whole unreadable; an unfinished one at the end is left out."""
    *pieces, tail = _EVENT_END.split(body)
    for at in range(0, len(pieces), 2):
        pieces[at] = _event(pieces[at], rules)
    if not pieces:
        return _event(tail, rules)
    with suppress(*_UNREADABLE):
        pieces.append(_event(tail, rules))
    return b"".join(pieces)


def _event(event: bytes, rules: _Rules) -> bytes:
    lines = event.split(b"\n") if b"\r" not in event else _LINE_END.split(event)
    data = [line for line in lines if line.startswith(b"data:")]
    payload = b"\n".join(line[5:] for line in data)
    if any(line and not line.startswith(_FIELDS) for line in lines):
        raise msgspec.DecodeError("not an event stream")
    if not data or payload.strip() == _DONE:
        return event
    redacted = rules.document(payload)
    if redacted is payload:
        return event
    # A line break is white space here, for inside a string JSON escapes it.
    line = b"data: " + _LINE_END.sub(b" ", redacted).strip()
    at = lines.index(data[0])
    return b"\n".join([*lines[:at], line, *(other for other in lines[at:] if not other.startswith(b"data:"))])
