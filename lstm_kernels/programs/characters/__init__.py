"""A character-level language model trained with LSTM and with nn.LSTM, side by side.

`python -m lstm_kernels.demo` trains both from the same seed on the same batches, and prints what
each reached and how fast. It samples text, and draws what the trained model remembers of a
sentence.
"""
