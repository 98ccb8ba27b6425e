"""One module a process: builds its objects from the settings and runs them. Imported lazily by the command line."""
