"""Cases of ops as data, for every executor. A test puts this folder's parent on the path (pyproject.toml)."""
