"""How far annotators agree: one measure a file, and the report."""
