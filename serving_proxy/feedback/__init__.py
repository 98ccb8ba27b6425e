"""Feedback on calls: how it is read, what of it may be kept, and how it gets into the spool."""
