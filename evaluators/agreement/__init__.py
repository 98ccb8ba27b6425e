"""How well an evaluator agrees with people who labeled the same records."""
