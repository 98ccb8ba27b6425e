"""Versions of the SQL database, one module each, and how a database comes to the newest."""
