"""The commands a person types: python -m launch.NAME."""
