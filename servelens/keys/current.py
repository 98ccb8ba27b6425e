"""The keys as they are now, for a process that asks often: the database is asked for more than a number only when
something has changed.
"""

from __future__ import annotations

from servelens.keys.store import Generation, KeyStore
from serving_proxy.authentication import Keys


class CurrentKeys:
    """Gives the keys, the same object for as long as none has changed. One thread at a time may call."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._generation: Generation | None = None
        self._keys = Keys()

    def __call__(self) -> Keys:
        """Raises Unavailable when the database does not answer; the next call tries again."""
        generation = self._store.generation()
        if generation != self._generation:
            self._keys = self._store.load()  # may be newer than the number, which then differs next time
            self._generation = generation
        return self._keys
