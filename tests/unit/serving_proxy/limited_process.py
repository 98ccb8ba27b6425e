"""One worker in a process of its own that asks as fast as it can: ``python -m … FOLDER SLOT CALLS PERIOD_S SECONDS
USERS [REDIS]``. Prints when it is ready, begins at the next line of its input, and prints the times in
microseconds at which each user was let in.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from servelens.clock import SystemClock
from serving_proxy.admission import RateLimited
from serving_proxy.endpoint import RateLimit
from serving_proxy.rate_limits.redis_counts import RedisCounts
from tests.unit.serving_proxy.limited import admission, limited


async def _run(
    folder: Path, slot: str, calls: int, period_s: float, seconds: float, users: int, url: str
) -> None:
    clock = SystemClock()
    redis = RedisCounts(url, clock, deadline_s=1.0) if url else None
    worker = admission(folder, slot, clock, redis=redis)
    endpoint = limited(RateLimit("user" if users else "endpoint", calls=calls, period_s=period_s))
    names: list[str | None] = [None]
    if users:
        names = [f"user {number}" for number in range(users)]
    _say("ready")
    sys.stdin.readline()
    times: dict[str, list[int]] = {str(name): [] for name in names}
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        for name in names:
            try:
                waited = worker.admit(endpoint, name)
                if waited is not None:
                    await waited
            except RateLimited:
                continue
            times[str(name)].append(clock.now_us())
    await worker.close()
    _say(json.dumps({"times": times, "refused": worker.refused, "fallbacks": worker.fallbacks}))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    where, slot, calls, period_s, seconds, users, *url = sys.argv[1:]
    asyncio.run(
        _run(
            Path(where), slot, int(calls), float(period_s), float(seconds), int(users), url[0] if url else ""
        )
    )
