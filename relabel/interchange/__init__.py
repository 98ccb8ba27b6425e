"""Cases and labels to and from other labeling tools: one tool a file."""
