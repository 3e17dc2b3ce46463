"""A program of its own that reads an HDF5 file and keeps nothing, before the file is read for good.

Of damaged files, libhdf5 follows some in circles without end, and some end the process; neither can be caught inside of
it. So `read_hdf5` runs this program first, and looks at how it ended: python hdf5_rehearsal.py FILE SECONDS
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py

#: Of larger files the structure is read and of each array the ends, but not all of it.
LARGE = 2**28
#: Rows at the ends.
_ENDS = 16


def visit(item: Any, whole: bool) -> None:
    """Read the attributes of a group or an array, and the array."""
    for key in item.attrs:
        item.attrs.get(key)
    if not isinstance(item, h5py.Dataset):
        return
    if not item.ndim or (whole and item.nbytes <= LARGE):
        item[()]
    else:
        _ = item[:_ENDS], item[-_ENDS:]


def main(path: str, seconds: int) -> None:
    """Read a file within so many seconds of the processor, where the system can limit them."""
    try:
        import resource
    except ImportError:  # Windows has none; the caller waits no longer either
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    whole = Path(path).stat().st_size <= LARGE
    with h5py.File(path, "r") as file:
        visit(file, whole)
        file.visititems(lambda _, item: visit(item, whole))


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except Exception:
        sys.exit(1)
