"""What the benchmark needs to know of another gateway: how it is installed, started and called.

Every gateway is set up to do as little as it can beside forwarding the call: its own logging, metrics
push, telemetry, retries and authentication are off where it has a switch for them. What is left on is in
``does``, in words, because that is what its CPU time pays for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from benchmarks.measuring import HEADERS, PATH, Unusable

_INSTALL_S = 900


@dataclass(frozen=True, slots=True)
class Started:
    """How to run a gateway: its command and environment, and how to call it.

    ``port`` is ``None`` when the gateway chooses one and prints it as its first line.
    """

    command: tuple[str, ...]
    port: int | None
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = PATH
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)
    model: str = "chat"


class Start(Protocol):
    """Write the gateway's configuration into ``folder`` and say how to run what is installed in ``home``."""

    def __call__(self, home: Path, folder: Path, port: int, backend: str) -> Started: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """One gateway. ``package`` is its distribution's name, ``requirements`` what is asked of the registry.

    ``parses`` says whether it reads the request's JSON; one that does not does less than we do.
    """

    name: str
    language: str
    registry: Literal["pypi", "npm"]
    package: str
    requirements: tuple[str, ...]
    does: str
    start: Start
    parses: bool = True

    def install(self, home: Path) -> None:
        """Install into ``home``, from nothing. Raises Unusable with the installer's last line."""
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        if self.registry == "npm":
            if shutil.which("npm") is None:
                raise Unusable("npm is not installed (Debian package 'npm')")
            _run(
                ["npm", "install", "--no-audit", "--no-fund", "--omit=dev", "--prefix", str(home)],
                self.requirements,
            )
            return
        _run([sys.executable, "-m", "venv", str(home)], ())
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run(pip, self.requirements)

    def is_installed(self, home: Path) -> bool:
        """Whether the wanted version is there."""
        version = self.version(home)
        return version is not None and self.requirements[0].endswith(version)

    def version(self, home: Path) -> str | None:
        """The installed version, or ``None`` when it is not installed."""
        if self.registry == "npm":
            manifest = home / "node_modules" / self.package / "package.json"
            return str(json.loads(manifest.read_text())["version"]) if manifest.exists() else None
        found = list(home.glob(f"lib/python*/site-packages/{self.package}-*.dist-info"))
        return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else None


def clean_environment(folder: Path, added: Mapping[str, str]) -> dict[str, str]:
    """What a gateway sees: no key, proxy setting or configuration of whoever runs the benchmark."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        **added,
    }


def _run(command: list[str], requirements: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, check=False, timeout=_INSTALL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"not installed: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unusable(f"not installed: {lines[-1] if lines else command[0]}")
