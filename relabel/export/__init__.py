"""Labeled cases as fine-tuning data."""
