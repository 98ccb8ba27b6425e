"""Where cases come from: one source a file."""
