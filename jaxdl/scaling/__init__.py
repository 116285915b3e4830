"""What models cost, and how their loss falls with it."""
