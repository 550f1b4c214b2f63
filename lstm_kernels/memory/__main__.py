"""Runs the program that measures how the cell state and the hidden state differ."""

from lstm_kernels.programs.cell_or_hidden.main import main

if __name__ == "__main__":
    main()
