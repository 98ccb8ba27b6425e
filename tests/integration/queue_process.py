"""The HTTP API of the queue in a process of its own: ``python queue_process.py DATABASE_URL ANNOTATORS``.

It writes its port on a line and serves until SIGTERM. Cases want so many labels, and a majority decides without adjudication.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

from dashboard import problems
from relabel.api.router import router
from relabel.queue.case_queue import CaseQueue
from servelens.clock import SystemClock
from servelens.database import Database
from tests.label_schemas import Versions


class _Server(uvicorn.Server):
    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        sys.stdout.write(f"{self.servers[0].sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()


def main() -> None:
    url, annotators = sys.argv[1], int(sys.argv[2])
    database = Database(url)
    schemas = Versions(annotators=annotators, adjudicate="never")
    app = FastAPI()
    problems.install(app)
    app.include_router(router(CaseQueue(database, SystemClock(), lease_s=300, schemas=schemas), database))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    _Server(config).run()
    database.dispose()


if __name__ == "__main__":
    main()
