"""What the server does so that it stays small."""

import gc
import threading
import weakref

from expost.explorer.memory import give_back, keep_small


class Circle:
    def __init__(self):
        self.itself = self


def test_what_refers_to_itself_is_collected_and_nothing_stays_frozen():
    frozen, ended = gc.get_freeze_count(), threading.Event()
    thread = keep_small(ended)
    assert gc.get_freeze_count() > frozen
    gc.disable()
    try:
        seen = weakref.ref(Circle())
        assert seen() is not None
        give_back()
        assert seen() is None
    finally:
        gc.enable()
        ended.set()
        thread.join(10)
    assert not thread.is_alive()
    assert gc.get_freeze_count() == 0
