"""How loud a text is."""
