"""The pages of the console: one module per page, each with ``layout`` and ``register``."""
