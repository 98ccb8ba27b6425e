"""Which cases an export holds, in a form short enough for its manifest, and what tells two such tallies apart.

Ids are written as ranges (``1-5,8``), and each block of :data:`BLOCK` ids has a hash of its cases' examples, so that a
comparison names the cases that have gone or come, and the block in which a case reads otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from servelens.errors import Invalid

BLOCK: Final = 100


class CaseTally:
    """Cases in ascending order of their ids."""

    def __init__(self) -> None:
        self._ranges: list[list[int]] = []
        self._blocks: dict[int, str] = {}
        self._block: int | None = None
        self._hash = sha256()

    def add(self, case_id: int, lines: Sequence[bytes]) -> None:
        """A case with the lines it gave."""
        if self._ranges and case_id == self._ranges[-1][1] + 1:
            self._ranges[-1][1] = case_id
        else:
            self._ranges.append([case_id, case_id])
        block = case_id // BLOCK
        if block != self._block:
            self._close()
            self._block, self._hash = block, sha256()
        self._hash.update(f"{case_id}\n".encode())
        for line in lines:
            self._hash.update(line)

    def to_json(self) -> dict[str, Any]:
        """``ids`` and ``blocks``, by number."""
        self._close()
        ids = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self._ranges)
        return {"ids": ids, "block": BLOCK, "blocks": {str(number): h for number, h in self._blocks.items()}}

    def _close(self) -> None:
        if self._block is not None:
            self._blocks[self._block] = self._hash.hexdigest()[:16]


def case_ids(tally: Mapping[str, Any]) -> set[int]:
    """The ids of a tally. Raises :class:`~servelens.errors.Invalid` when it is none."""
    return set(_expanded(str(tally["ids"]).split(",")))


def changed_blocks(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[int, int]]:
    """First and last id of each block that holds the same cases in both, and reads otherwise."""
    if then.get("block") != now.get("block"):
        return []
    size, ids_then, ids_now = int(now["block"]), case_ids(then), case_ids(now)
    changed = []
    for number in sorted(set(map(int, then["blocks"])) & set(map(int, now["blocks"]))):
        first, last = number * size, number * size + size - 1
        block = range(first, last + 1)
        same_cases = ids_then.intersection(block) == ids_now.intersection(block)
        if same_cases and then["blocks"][str(number)] != now["blocks"][str(number)]:
            changed.append((first, last))
    return changed


def _expanded(ranges: Iterable[str]) -> Iterator[int]:
    for each in ranges:
        if not each:
            continue
        first, _, last = each.partition("-")
        try:
            yield from range(int(first), int(last or first) + 1)
        except ValueError as error:
            raise Invalid(f"{each!r} is no range of cases"[:100], field="cases.ids") from error
