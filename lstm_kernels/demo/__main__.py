"""Runs the program that trains a character model with LSTM and with nn.LSTM."""

from lstm_kernels.programs.characters.main import main

if __name__ == "__main__":
    main()
