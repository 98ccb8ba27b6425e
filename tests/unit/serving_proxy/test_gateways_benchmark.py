"""The comparison with other gateways says what it left out and why, and compares only what does the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gateways
from benchmarks.gateways import PEERS, Contender, chosen, report, start_peer
from benchmarks.instant_backend import chat_body
from benchmarks.measuring import Load, Server, Unusable, check_machine, wrk_script


def measured(process: subprocess.Popen[bytes], name: str, *micros: float, failed: int = 0) -> Contender:
    loads = [Load(1000, each, 1e6 / each, failed) for each in micros]
    return Contender(Server(name, 1, 1, process), Path("unused"), loads)


def test_only_what_reads_the_body_and_answers_every_call_is_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.communicate()
    contenders = [
        measured(process, "nginx", 20, 20, 20),
        measured(process, "servelens", 50, 50, 100),
        measured(process, "smg", 300, 300, 300),
        measured(process, "smg-unread", 100, 100, 100),
        measured(process, "ferrogw", 250, 250, 250),
        measured(process, "tensorzero", 30, 30, 30, failed=5),
    ]
    peers = [PEERS[name] for name in ("smg", "smg-unread", "ferrogw", "tensorzero", "litellm")]
    line = report(contenders, peers, {"litellm": "did not start: no port"})
    table = capsys.readouterr().out
    assert line["cheapest_peer"] == "ferrogw"
    assert line["cpu_ratio_to_cheapest_peer"] == 5.0
    assert line["cpu_ratio"]["smg"] == 6.0
    assert line["failed_calls"]["tensorzero"] == 15
    assert line["not_measured"] == {"litellm": "did not start: no port"}
    assert "did not start: no port" in table
    json.dumps(line)


def test_an_unknown_gateway_is_one_line_and_status_2() -> None:
    command = [sys.executable, "-m", "benchmarks.gateways", "--peers", "smg,nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --peers: nothing is unknown, use some of smg, ")
    assert len(done.stderr.splitlines()) == 1


def test_subsets_keep_their_order() -> None:
    assert [peer.name for peer in chosen("litellm, smg")] == ["litellm", "smg"]
    with pytest.raises(Unusable, match="nothing is unknown"):
        chosen(" , ")


def test_what_is_not_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "HOME", tmp_path)
    with pytest.raises(Unusable, match="--install"), start_peer(tmp_path, PEERS["mlflow"], 1):
        pass


def test_every_gateway_is_called_with_600_bytes_and_pinned() -> None:
    for peer in PEERS.values():
        assert all("==" in each or each.rpartition("@")[2][0].isdigit() for each in peer.requirements)
    for model in ("chat", "tensorzero::model_name::chat"):
        assert len(chat_body(stream=False, model=model)) == 600
    assert 'wrk.headers["x-a"] = "1"' in wrk_script(b"{}", {"x-a": "1"})


def test_memory_is_looked_at_before_and_after(tmp_path: Path) -> None:
    try:
        check_machine()
    except Unusable as problem:
        pytest.skip(str(problem))
    command = [
        *(sys.executable, "-m", "benchmarks.proxy_memory", "--calls", "300", "--streams", "12"),
        *("--warm-calls", "100", "--warm-streams", "6"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["streams_cut"] == 4
    assert line["calls"] >= 300
    assert line["rss_start_mb"] > 20
    assert -1 < line["rss_growth"] < 1
