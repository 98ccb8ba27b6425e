"""servelens: observability and online evaluation for served models."""
