"""The HTTP API under ``/api/relabel``: one router a file."""
