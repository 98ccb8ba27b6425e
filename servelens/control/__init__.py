"""The control plane: endpoints in the SQL database, the settings file reconciled into them, and their HTTP API."""
