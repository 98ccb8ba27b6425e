"""Records like those of real chat traffic, for benchmarks of everything behind the spool: bodies of a given size made
of English sentences that differ from record to record, so that a table compresses them as it compresses traffic.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from collector.record import Attempt, Record
from collector.spool import Durability, SpoolWriter
from servelens.errors import SpoolFull
from servelens.identifiers import RequestIds

ENDPOINT: Final = "chat"
_TEXT: Final = (
    "the model answers a question about time and place when people ask it why some things are as they are and others "
    "never were because of weather history money music numbers letters rivers engines gardens machines doctors planets "
    "children teachers winters markets bridges islands kitchens stories pictures questions reasons answers examples"
)
_SPACING_US: Final = 1_000


def records(
    count: int, *, request_bytes: int, response_bytes: int, end_us: int, seed: int = 1
) -> Iterator[Record]:
    """``count`` chat invocations, a millisecond apart, the last at ``end_us`` (microseconds since the Unix epoch)."""
    chance = random.Random(seed)
    words = _TEXT.split()
    ids = RequestIds()
    corpus = " ".join(
        chance.choice(words) for _ in range(50_000 + (request_bytes + response_bytes) // 4)
    ).encode()
    request_room = request_bytes - len(b"".join(_REQUEST))
    response_room = response_bytes - len(b"".join(_RESPONSE))
    attempt = [Attempt("champion", "http://127.0.0.1:8000", 200, None, 180_000)]
    for number in range(count):
        at = chance.randrange(len(corpus) - request_room - response_room)
        question = corpus[at : at + request_room]
        answer = corpus[at + request_room : at + request_room + response_room]
        variant = "challenger" if number % 4 == 0 else "champion"
        yield Record(
            ids.next(),
            end_us - (count - number) * _SPACING_US,
            200 if chance.random() > 0.01 else 502,
            150_000 + chance.randrange(100_000),
            ENDPOINT,
            "chat",
            request=question.join(_REQUEST),
            response=answer.join(_RESPONSE),
            served_entity=variant,
            served_entity_id=variant,
            entity_version="1",
            requester="benchmark",
            experiment="models",
            variant=variant,
            unit=f"user-{chance.randrange(10_000)}",
            phase=0,
            propensity=0.5,
            attempt_details=attempt,
            endpoint_config_version=1,
        )


def _framed(body: dict[str, Any]) -> tuple[bytes, bytes]:
    """What stands before and behind the text in a body; the text needs no escapes."""
    before, _, behind = json.dumps(body).encode().partition(b"TEXT")
    return before, behind


_REQUEST: Final = _framed(
    {"model": ENDPOINT, "messages": [{"role": "user", "content": "TEXT"}], "temperature": 0.7}
)
_RESPONSE: Final = _framed(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": ENDPOINT,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "TEXT"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 60, "total_tokens": 160},
    }
)


def fill_spool(directory: Path, traffic: Iterator[Record]) -> int:
    """Write ``traffic`` into the spool of one worker at ``directory``; its size in bytes."""
    writer = SpoolWriter.open(
        directory, durability=Durability.MEMORY, max_bytes=1 << 40, buffer_bytes=256 << 20
    )
    for record in traffic:
        while True:
            try:
                writer.append(record, None)
            except SpoolFull:  # faster than the disk
                writer.flush(60.0)
            else:
                break
    writer.flush(600.0)
    size = writer.size_bytes
    writer.close(600.0)
    return size
