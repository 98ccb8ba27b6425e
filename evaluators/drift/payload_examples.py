"""The examples in a call of a tabular model: columns of scalars from MLflow's scoring payloads and their answers.

Requests: ``dataframe_split``, ``dataframe_records``, ``instances`` and ``inputs``
(https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally, "Accepted payload formats"; the last two are TensorFlow
Serving's). Answers: ``predictions``, a list of scalars, rows or objects, or an object of columns. What stands at a
position without a name is called by its number; a lone scalar is ``input``.

Invariant: all columns of a record are of one length, its number of examples. A payload that does not add up is refused
whole, never read in part; a value that is no scalar (a tensor, an object) is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from collector.json_text import NOT_JSON, parse

UNNAMED: Final = "input"
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_NAME_CHARACTERS: Final = 255


class _Split(msgspec.Struct):
    data: list[list[Any]]
    columns: list[Any] | None = None


class _Request(msgspec.Struct):
    dataframe_split: _Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: Any = None
    inputs: Any = None


class _Response(msgspec.Struct):
    predictions: Any = None


_read_request: Final = msgspec.json.Decoder(_Request).decode
_read_response: Final = msgspec.json.Decoder(_Response).decode


@dataclass(slots=True)
class Examples:
    """How many examples there are (``rows``), and the values of those that were taken, by column. ``nested`` columns hold
    something else than scalars and are left out."""

    rows: int
    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    nested: int = 0


def is_text(word: str) -> bool:
    """Whether a table can hold it: JSON can carry half of a surrogate pair, and UTF-8 cannot."""
    return word.isascii() or not any("\ud800" <= character <= "\udfff" for character in word)


def features(body: str, most: int) -> Examples | None:
    """The examples of a request, ``most`` at the most, evenly taken; ``None`` when there are none.

    Raises ``ValueError`` when the payload does not add up.
    """
    request = _read(body, _read_request, _Request)
    if request.dataframe_split is not None:
        return _split(request.dataframe_split, most)
    if request.dataframe_records is not None:
        return _rows(request.dataframe_records, most)
    given = request.instances if request.instances is not None else request.inputs
    return None if given is None else _any(given, most)


def predictions(body: str, most: int) -> Examples | None:
    """The examples of an answer; as :func:`features`."""
    given = _read(body, _read_response, _Response).predictions
    return None if given is None else _any(given, most)


def _read(body: str, decode: Callable[[str], Any], kind: type[Any]) -> Any:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Clients send NaN, which is no JSON.
        value = parse(body)
        if value is NOT_JSON:
            raise ValueError("it is no JSON") from None
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error


def _split(frame: _Split, most: int) -> Examples:
    rows = _some(frame.data, most)
    width = len(frame.columns) if frame.columns is not None else len(frame.data[0]) if frame.data else 0
    names = [str(name) for name in (frame.columns if frame.columns is not None else range(width))]
    if len(set(names)) < len(names):
        raise ValueError("two columns have the same name")
    if any(len(row) != width for row in frame.data):
        raise ValueError(f"not every row has {width} values")
    return _columns(len(frame.data), dict(zip(names, zip(*rows, strict=True), strict=False)))


def _any(given: Any, most: int) -> Examples:
    if isinstance(given, list):
        return _rows(given, most)
    if isinstance(given, dict):
        lists = {name: values for name, values in given.items() if isinstance(values, list)}
        if not lists:
            return _rows([given], most)
        lengths = {len(values) for values in lists.values()}
        if len(lists) < len(given) or len(lengths) > 1:
            raise ValueError("its columns are not of one length")
        total = lengths.pop()
        some = {str(name): _some(values, most) for name, values in lists.items()}
        return _columns(total, some)
    return _rows([given], most)


def _rows(given: list[Any], most: int) -> Examples:
    rows = _some(given, most)
    if all(isinstance(row, dict) for row in given):
        names = dict.fromkeys(name for row in rows for name in row)
        return _columns(len(given), {str(name): [row.get(name) for row in rows] for name in names})
    if all(isinstance(row, list) for row in given):
        width = len(given[0])
        if any(len(row) != width for row in given):
            raise ValueError("its rows are not of one length")
        return _columns(len(given), {str(at): [row[at] for row in rows] for at in range(width)})
    if any(isinstance(row, dict | list) for row in given):
        raise ValueError("some of its rows are values and some are not")
    return _columns(len(given), {UNNAMED: rows})


def _columns(total: int, columns: Mapping[str, Sequence[Any]]) -> Examples:
    found = Examples(total)
    for name, values in columns.items():
        if len(name) > _NAME_CHARACTERS or not is_text(name):
            raise ValueError("a column's name is too long, or no text that a table can hold")
        if set(map(type, values)) <= _SCALARS:
            found.columns[name] = values
        else:
            found.nested += 1
    return found


def _some(values: list[Any], most: int) -> list[Any]:
    if len(values) <= most:
        return values
    return [values[index * len(values) // most] for index in range(most)]
