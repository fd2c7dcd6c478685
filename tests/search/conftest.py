import pytest

from tests.search.small_search import FIT, make


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    search = make(tmp_path_factory.mktemp("run"), replicates=2)
    search.search(**FIT)
    return search
