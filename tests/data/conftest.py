"""What the tests of the data room share: a folder of blobs and the real data."""

import os
from pathlib import Path

import pytest
from folder_blobs import FolderBlobs


@pytest.fixture
def blobs(tmp_path):
    return FolderBlobs(tmp_path / "blobs")


@pytest.fixture(scope="session")
def real():
    """The folder of the public sets, or a skip with the reason."""
    folder = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data: set WENFANG_TEST_DATA ({folder} is not there)")
    return folder
