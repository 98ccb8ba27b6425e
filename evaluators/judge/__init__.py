"""An LLM as evaluator: a rubric and a record go to any OpenAI-compatible endpoint, a grade comes back."""
