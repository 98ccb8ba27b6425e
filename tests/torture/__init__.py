"""Real processes, real load, and everything that can go wrong at once: does every record stay accounted for?"""
