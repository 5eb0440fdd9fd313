"""Setup and daily commands. Standard library only: they run before anything is installed."""
