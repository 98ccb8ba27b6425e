"""API keys: their store in the SQL database, the HTTP API that manages them, and the console's door."""
