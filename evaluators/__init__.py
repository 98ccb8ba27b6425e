"""Scores for records; profiles and drift for windows of them."""
