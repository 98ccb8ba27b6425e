"""Counting calls and tokens over a sliding window: in shared memory on one machine, in Redis across several."""
