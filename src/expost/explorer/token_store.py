"""An in-memory store of uploaded examples and results to save, which the page names by tokens."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from expost.errors import UsageError

T = TypeVar("T")

#: Bytes that an entry takes beside its contents: objects and their names. Without it, a million small ones fit.
OVERHEAD = 4_000


class TokenStore(Generic[T]):
    """A store by unguessable tokens; when it is full, the least recently used entries go.

    Args:
        kind: Name of an entry, in the singular; for messages.
        most: Most bytes in all. The newest entry is kept whatever its size.

    Example:
        >>> store = TokenStore("upload", most=10_000)
        >>> first, second = store.keep("a", 6_000), store.keep("b", 6_000)
        >>> store[second], len(store)
        ('b', 1)
    """

    def __init__(self, kind: str, most: int) -> None:
        self.kind = kind
        self.most = most
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def keep(self, thing: T, size: int) -> str:
        """Store an entry of the given size in bytes; return its token."""
        token = secrets.token_urlsafe(18)
        with self._lock:
            self._things[token] = (thing, size + OVERHEAD)
            self._size += size + OVERHEAD
            while len(self._things) > 1 and self._size > self.most:
                _, (_, freed) = self._things.popitem(last=False)
                self._size -= freed
        return token

    def __getitem__(self, token: str) -> T:
        """Return an entry.

        Raises:
            UsageError: if it is unknown, or no longer kept.
        """
        with self._lock:
            if token not in self._things:
                raise UsageError(f"that {self.kind} is no longer kept; make it again")
            self._things.move_to_end(token)
            return self._things[token][0]

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._things)
