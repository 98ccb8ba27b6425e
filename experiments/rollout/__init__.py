"""A canary that takes itself up, or back: decisions, what carries them out, and who is told."""
