import pytest

from wenfang.core.home import Home
from wenfang.core.settings import Settings
from wenfang.studio.wiring import open_in_place


@pytest.fixture
def studio(tmp_path):
    studio, lock = open_in_place(Home(tmp_path / "home"), Settings())
    yield studio
    studio.tables.close()
    lock.release()
