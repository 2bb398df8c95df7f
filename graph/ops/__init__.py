"""The closed set of ops, one file each. `ALL_OPS` is the list: explicit, ordered, no logic."""
