"""Data sets: by name or from disk, as uint8 images or float32 vectors, in three disjoint parts.

`load_data` loads; `DATASETS` and `data_catalog` say what has a name, `FORMATS` what is read from disk.
"""

from typing import TYPE_CHECKING

from expost.utils.lazy import lazy

if TYPE_CHECKING:
    from expost.data.examples import Preprocess
    from expost.data.files import FORMATS, Format
    from expost.data.load import load_data, load_examples, load_named, load_part, load_path, shortest_side
    from expost.data.named import DATASETS, CatalogEntry, NamedData, data_catalog

__all__ = [
    "DATASETS",
    "FORMATS",
    "CatalogEntry",
    "Format",
    "NamedData",
    "Preprocess",
    "data_catalog",
    "load_data",
    "load_examples",
    "load_named",
    "load_part",
    "load_path",
    "shortest_side",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "examples": ["Preprocess"],
        "files": ["FORMATS", "Format"],
        "load": ["load_data", "load_examples", "load_named", "load_part", "load_path", "shortest_side"],
        "named": ["DATASETS", "CatalogEntry", "NamedData", "data_catalog"],
    },
)
