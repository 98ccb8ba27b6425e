"""What the benchmarks start: the instant backend on the load's core, nginx and our proxy on the other.

nginx does the nearest thing that it can: one worker, keep-alive to the backend, an access log with every
request's body. It cannot log answers without a scripting module, so it logs less than we do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import LOAD_CORE, PROXY_CORE, Server, Unusable, free_port, process, wait_for

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; user root;
events {{ worker_connections 1024; }}
http {{
  log_format bodies escape=json '{{"time":"$time_iso8601","id":"$request_id","status":$status,'
    '"duration":$request_time,"upstream":"$upstream_response_time","bytes":$body_bytes_sent,'
    '"request":"$request_body"}}';
  access_log {folder}/bodies.log bodies;
  client_body_buffer_size 64k; client_max_body_size 16m; keepalive_requests 10000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 10000000; }}
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://backend; }} }}
  server {{ listen 127.0.0.1:{stream_port}; proxy_buffering off; location / {{ proxy_pass http://backend;
  }} }} }}
"""


@contextmanager
def start_backend(folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.instant_backend"]
    with process(command, LOAD_CORE, folder / "backend") as running:
        assert running.stdout is not None
        port = int(running.stdout.readline() or 0)
        if not port:
            raise Unusable("the benchmark's backend did not start")
        yield Server("direct", port, port, running)


@contextmanager
def start_nginx(folder: Path, backend: int) -> Iterator[Server]:
    port, stream_port = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, backend=backend, port=port, stream_port=stream_port))
    command = ["nginx", "-p", str(folder), "-c", str(config)]
    with process(command, PROXY_CORE, folder / "nginx.log") as running:
        wait_for(port, running, folder / "nginx.log")
        yield Server("nginx", port, stream_port, running)


@contextmanager
def start_proxy(folder: Path, backend: int) -> Iterator[Server]:
    port = free_port()
    command = [
        *(sys.executable, "-m", "benchmarks.proxy_under_test", "--port", str(port)),
        *("--backend", f"http://127.0.0.1:{backend}", "--spool", str(folder / "spool")),
    ]
    with process(command, PROXY_CORE, folder / "proxy.log") as running:
        wait_for(port, running, folder / "proxy.log")
        yield Server("servelens", port, port, running)
