"""Which records become cases."""
