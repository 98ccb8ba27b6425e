"""Answers against the truth that arrives later: correct or not, or how far off, and the quality of a window."""
