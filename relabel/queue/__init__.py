"""Who looks at which case, for how long, and what comes of it."""
