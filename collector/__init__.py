"""Spool, ingest and the Delta tables that everybody else reads."""
