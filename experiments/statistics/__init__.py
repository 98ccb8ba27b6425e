"""The statistical methods of experiments, one a file; numbers in, numbers out."""
