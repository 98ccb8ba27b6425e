"""Evaluators over the tables, on a schedule."""
