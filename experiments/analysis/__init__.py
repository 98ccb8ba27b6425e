"""One look at an experiment: from sums in tables to a report in words."""
