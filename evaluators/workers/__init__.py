"""Evaluators in processes of their own, so that a model that hangs, crashes or runs out of memory stops nothing else."""
