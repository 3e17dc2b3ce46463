"""What all tests share: where the real data is, and one seed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, or the one that EXPOST_TEST_DATA names."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("EXPOST_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set EXPOST_TEST_DATA to its folder")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests must not depend on what data and weights a machine happens to have."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EXPOST_DATA", "EXPOST_WEIGHTS"):
            patch.delenv(name, raising=False)
        empty = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(empty))
        patch.setenv("TORCH_HOME", str(empty))
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For work on small matrices, which waits for other threads more than it gains from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)
