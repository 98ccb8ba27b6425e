"""The data plane: forwards every invocation and records it before its last byte is released."""
