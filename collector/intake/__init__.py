"""Other ways in: CloudEvents and OTLP traces become records, for models that do not sit behind the proxy."""
