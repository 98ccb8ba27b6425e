"""Texts to token numbers: the tokenizer's own marks around a text, and work that is done ahead on a thread.

A fast tokenizer works outside Python's interpreter lock, so the next texts become numbers while the device
computes on the ones before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Marks:
    """Token numbers that a tokenizer puts around a text by itself, such as ``[CLS]`` and ``[SEP]``."""

    before: list[int]
    after: list[int]

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


def token_numbers(tokenizer: Any, texts: Sequence[str], *, control: bool = False) -> list[list[int]]:
    """The token numbers of each text, without marks. A control token spelled out in a text counts as text,
    unless ``control`` is given."""
    if not texts:
        return []
    numbers: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
        split_special_tokens=not control,
    )["input_ids"]
    return numbers


def own_marks(tokenizer: Any) -> Marks:
    """What ``tokenizer`` puts around a text. ``ValueError`` when it changes more than that."""
    marked: list[int] = tokenizer("a", verbose=False)["input_ids"]
    (plain,) = token_numbers(tokenizer, ["a"])
    for start in range(len(marked) - len(plain) + 1):
        if plain and marked[start : start + len(plain)] == plain:
            return Marks(marked[:start], marked[start + len(plain) :])
    raise ValueError("the tokenizer does not put its marks around a text; it cannot be used here.")


def ahead(work: Callable[[S], T], items: Iterable[S], *, depth: int) -> Iterator[T]:
    """``work(item)`` for each item, in order; on a thread of its own, up to ``depth`` results ahead of what
    has been taken (0: no thread). What ``work`` raises is raised where its result would be."""
    if depth == 0:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="tokenizing") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
