"""The door of `python -m lstm_kernels.demo`; the program is in `programs/characters`."""
