"""``servelens up``: every process of one machine under one supervisor."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click

from servelens.assembly.keys import check_addresses
from servelens.settings import Settings
from servelens.settings_file import load_settings
from servelens.supervisor import Program, Supervisor


def run(config: Path) -> int:
    """Run until Ctrl-C or SIGTERM: proxies end first, then the collector drains the spool, then the rest."""
    settings = load_settings(config)
    check_addresses(settings)  # here, since a worker that refuses would be started again and again
    return asyncio.run(_run(settings, config))


def programs(settings: Settings, config: Path) -> list[Program]:
    """The processes of one machine, in the order in which they are started."""

    def program(name: str, *arguments: str, stop_order: int, stop_timeout_s: float = 30.0) -> Program:
        command = (sys.executable, "-m", "servelens", *arguments, "--config", str(config), "--supervised")
        return Program(name, command, stop_order, stop_timeout_s, unblocks_sigterm=True)

    workers = [f"proxy-{index}" for index in range(settings.proxy.workers)]
    scorer = [program("scorer", "scorer", stop_order=2)] if settings.runs_scorer else []
    return [
        *scorer,
        program("collector", "collector", stop_order=1, stop_timeout_s=120.0),
        *(
            program(slot, "proxy", "--slot", slot, stop_order=0, stop_timeout_s=settings.proxy.drain_s + 10.0)
            for slot in workers
        ),
        program("console", "console", stop_order=2),
        program("scheduler", "scheduler", stop_order=2, stop_timeout_s=60.0),
    ]


async def _run(settings: Settings, config: Path) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    intake = settings.collector.intake
    click.echo(
        f"proxy    http://{settings.proxy.host}:{settings.proxy.port}/v1\n"
        f"console  http://{settings.console.host}:{settings.console.port}/\n"
        + (f"scorer   {settings.scorer.address}/v1/score\n" if settings.runs_scorer else "")
        + (f"intake   http://{intake.host}:{intake.port}/\n" if intake.enabled else "")
        + f"data     {settings.data_dir}\nCtrl-C stops everything, with the spool drained.",
        err=True,
    )
    supervisor = Supervisor(programs(settings, config), lambda line: click.echo(line, err=True))
    return await supervisor.run(stop)
