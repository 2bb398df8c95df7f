"""pytest plugin: collect every folder as a plain directory.

The folders of this repository are packages named `edgec.graph` and so on; left to itself pytest would import
`graph/__init__.py` a second time, as the unrelated module `graph`.
"""

import pytest


def pytest_collect_directory(path, parent):
    return pytest.Dir.from_parent(parent, path=path)
