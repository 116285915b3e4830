"""Blocks shared by models that Flax does not have."""
