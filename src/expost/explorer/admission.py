"""How many uploads are held and decoded at once, so that many people, or one in bad faith, do not fill the memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from expost.errors import DataError

#: Uploads that are sent, wait or are decoded at once.
MOST_UPLOADS = 32
#: Bytes that their files may have together; one alone may have more.
MOST_BYTES = 64_000_000
#: Decoded at once. One image of the largest size takes some 500 MB.
DECODED_AT_ONCE = 1
#: Seconds that an upload waits for its turn.
PATIENCE = 20.0

T = TypeVar("T")
_BUSY = "as many files are being read as are taken at once; try again in a moment"


class Busy(DataError):
    """There is no room for another upload."""


class Admission:
    """Counts uploads and their bytes.

    Args:
        uploads: Most uploads at once.
        size: Most bytes of theirs together.
        decoded: Most that are decoded at once; the others wait.
    """

    def __init__(self, uploads: int = MOST_UPLOADS, size: int = MOST_BYTES, decoded: int = DECODED_AT_ONCE) -> None:
        self.uploads = uploads
        self.size = size
        self._count = self._bytes = 0
        self._lock = threading.Lock()
        self._turns = asyncio.Semaphore(decoded)
        # Threads of their own: glibc keeps freed memory by thread, and each of a server's forty would keep an image's.
        self._threads = ThreadPoolExecutor(decoded, thread_name_prefix="decode")

    @contextmanager
    def upload(self, size: int) -> Iterator[None]:
        """Count an upload of at most so many bytes within the block.

        Raises:
            Busy: if there are too many.
        """
        with self._lock:
            if self._count >= self.uploads or (self._count and self._bytes + size > self.size):
                raise Busy(_BUSY)
            self._count += 1
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                self._bytes -= size

    async def decode(self, read: Callable[[bytes, str], T], body: bytes, name: str) -> T:
        """Wait for a turn, and return what `read` makes of a file's bytes and name.

        Raises:
            Busy: if others take too long.
        """
        try:
            await asyncio.wait_for(self._turns.acquire(), PATIENCE)
        except TimeoutError:
            raise Busy(_BUSY) from None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(read, body, name))
        finally:
            self._turns.release()
