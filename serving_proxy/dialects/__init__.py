"""One module a wire format: how to find a model, a unit and a text in it, and how it reports errors."""
