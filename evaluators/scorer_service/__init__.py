"""An evaluator as a small service: other processes ask for scores of texts and have them within milliseconds."""
