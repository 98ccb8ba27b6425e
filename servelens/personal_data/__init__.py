"""Personal data in texts: found here once, masked by the proxy's guardrails and counted by an evaluator."""
