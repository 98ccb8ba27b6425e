"""TensorZero (Rust; https://github.com/tensorzero/tensorzero): the gateway that its Python package embeds.

The package has no program of its own; it starts the same HTTP gateway inside of a process, here one that
does nothing else (:mod:`benchmarks.peers.embedded_tensorzero`).
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.peer import Peer, Started

CONFIG = """
[gateway]
observability.enabled = false

[models.chat]
routing = ["backend"]

[models.chat.providers.backend]
type = "openai"
api_base = "{backend}/v1"
model_name = "chat"
api_key_location = "none"
"""


def start(home: Path, folder: Path, port: int, backend: str) -> Started:
    config = folder / "tensorzero.toml"
    config.write_text(CONFIG.format(backend=backend))
    launcher = Path(__file__).with_name("embedded_tensorzero.py")
    return Started(
        (
            str(home / "bin" / "python"),
            "-P",
            str(launcher),
            str(config),
        ),  # -P: this folder has a tensorzero.py
        None,
        {"RUST_LOG": "error", "TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1"},
        path="/openai/v1/chat/completions",
        model="tensorzero::model_name::chat",
    )


PEER = Peer(
    "tensorzero",
    "Rust",
    "pypi",
    "tensorzero",
    ("tensorzero==2026.6.0",),
    "parses body and answer into its own types and builds the answer anew; observability (ClickHouse) off, no "
    "authentication",
    start,
)
