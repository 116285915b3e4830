"""What a sweep is made of; `launch/sweep.py` is the command."""
