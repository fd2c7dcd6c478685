import pytest

from tests.search.small_search import FIT, make
from tests.search.test_workers import search


@pytest.fixture(scope="session")
def one_worker():
    """The table of the search of test_workers.py, by one worker."""
    return search(workers=1)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    search = make(tmp_path_factory.mktemp("run"), replicates=2)
    search.search(**FIT)
    return search
