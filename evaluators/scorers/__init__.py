"""One evaluator a file."""
