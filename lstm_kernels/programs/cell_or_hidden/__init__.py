"""How the cell state and the hidden state differ, measured on trained LSTMs and a plain RNN.

`python -m lstm_kernels.memory` trains them on three tasks that need memory. It reports what each
state carries, for how long, and how gradients travel.
"""
