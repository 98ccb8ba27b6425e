"""Other gateways that the benchmark runs beside ours, one module each."""
