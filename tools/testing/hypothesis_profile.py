"""pytest plugin: property tests draw the same examples in every run, and are never timed."""

from hypothesis import settings

settings.register_profile("edgec", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("edgec")
