"""The console: Dash pages and the HTTP API for experiments, evaluations and relabeling."""
