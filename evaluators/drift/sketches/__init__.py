"""Summaries of columns that stay small, can be kept, and combine into those of longer windows."""
