"""What all tests share: where the real data is, and one seed."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, or the one that EXPOST_TEST_DATA names."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("EXPOST_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set EXPOST_TEST_DATA to its folder")
    return folder
