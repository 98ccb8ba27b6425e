"""Settings turned into objects, one module a kind, so that each process imports only what it builds."""
