"""From the tables to sums per unit, phase and variant."""
