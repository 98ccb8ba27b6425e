"""What a line of each export format is: one format a file."""
