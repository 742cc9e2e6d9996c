"""Real stores for the contract suites."""

import pytest

from contracts.table_worlds import STORES, empty_postgres, opened, postgres_database


@pytest.fixture(scope="session")
def postgres_url():
    with postgres_database() as url:
        yield url


@pytest.fixture(params=STORES)
def tables(request, tmp_path_factory):
    def fresh():
        url = request.getfixturevalue("postgres_url")
        empty_postgres(url)
        return url

    with opened(request.param, tmp_path_factory.mktemp("t"), fresh) as store:
        yield store
