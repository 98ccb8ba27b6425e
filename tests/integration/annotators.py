"""Annotators as processes: ``python annotators.py PORT NUMBER SEED KILLS``. Needs the standard library alone, so that a
process costs a fork.

Each annotator claims and labels until every case is finished. Meanwhile annotators drawn by ``SEED`` are killed with SIGKILL,
after random numbers of labels, and replaced by a process of the same name. The last line is how many were killed.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sys
import time

_GIVE_UP_S = 240.0


def main() -> None:
    port, number, seed, kills = (int(word) for word in sys.argv[1:])
    draw = random.Random(seed)
    deadline = time.monotonic() + _GIVE_UP_S
    names = {_start(port, f"annotator {each}", deadline): f"annotator {each}" for each in range(number)}
    killed, next_kill = 0, time.monotonic() + 0.2
    while names:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            name = names.pop(pid)
            if status != 0:
                _stop(names)
                raise SystemExit(f"{name} ended with {status}")
        elif killed < kills and time.monotonic() > next_kill:
            pid = draw.choice(sorted(names, key=names.__getitem__))
            name = names.pop(pid)
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            killed += os.WIFSIGNALED(status)
            names[_start(port, name, deadline)] = name
            next_kill = time.monotonic() + draw.random() * 0.3
        else:
            time.sleep(0.005)
    sys.stdout.write(f"{killed}\n")


def _start(port: int, name: str, deadline: float) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _annotate(port, name, deadline)
        status = 0
    finally:
        os._exit(status)


def _stop(names: dict[int, str]) -> None:
    for pid in names:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _annotate(port: int, name: str, deadline: float) -> None:
    console = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not _all_finished(console):
        if time.monotonic() > deadline:
            raise SystemExit("there is still something to do")
        status, case = _call(console, "POST", "/claim", {"annotator": name})
        if status == 204:  # what is left is in others' hands
            time.sleep(0.1)
        while status == 200 and case is not None:
            # Two in ten disagree with the rest.
            rating = "bad" if (case["id"] * 7 + len(name) * 13 + int(name.split()[1])) % 10 < 2 else "good"
            label = {"annotator": name, "rating": rating, "comment": name, "version": case["version"]}
            status, answer = _call(console, "POST", f"/cases/{case['id']}/label?next=true", label)
            case = answer["next"] if status == 200 else None
        if status not in (200, 204):
            raise SystemExit(f"{name}: {status} {case}")


def _all_finished(console: http.client.HTTPConnection) -> bool:
    total = _call(console, "GET", "/counts", None)[1]["total"]
    return total["open"] + total["claimed"] == 0 and total["labeled"] > 0


def _call(
    console: http.client.HTTPConnection, method: str, path: str, body: object
) -> tuple[int, dict | None]:
    sent = None if body is None else json.dumps(body)
    console.request(method, "/api/relabel" + path, sent, {"content-type": "application/json"})
    answer = console.getresponse()
    text = answer.read()
    if answer.status >= 400:
        sys.stderr.write(f"{method} {path}: {answer.status} {text[:300]!r}\n")
    return answer.status, json.loads(text) if text else None


if __name__ == "__main__":
    main()
