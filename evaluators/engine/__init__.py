"""Models on their device: batches, windows and what to do when one fails. Imports torch, transformers and numpy only."""
