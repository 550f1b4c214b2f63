# %% [markdown]
# # Streaming inference
#
# A model hears a signal sample by sample and must answer at once. This tutorial trains a small
# detector on whole sequences, then runs it one step at a time, with the same answers. It takes
# less than half a minute on one core.
#
# The task: say whether two beeps came at the same pitch. The model must remember the first
# pitch over silence and noise.

# %%
import torch
from torch import nn

from lstm_kernels import LSTM

torch.manual_seed(0)
torch.set_num_threads(1)  # small calls


class Detector(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.lstm = LSTM(3, hidden, forget_bias=3.0)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x, state=None):
        output, state = self.lstm(x, state)
        return self.head(output).squeeze(-1), state


def signals(count, steps=30):
    """(T, N, 3): two pitches with noise, beeps at step 2 and at a late one; and the answers."""
    x = 0.1 * torch.randn(steps, count, 3)
    first, second = torch.randint(2, (2, count))
    when = torch.randint(10, steps, (count,))
    n = torch.arange(count)
    x[2, n, first] += 1
    x[when, n, second] += 1
    x[when, n, 2] += 1  # "now answer"
    return x, when, (first == second).float()


# %% [markdown]
# ## Train on whole sequences

# %%
detector = Detector()
optimizer = torch.optim.Adam(detector.parameters(), lr=1e-2)
for _ in range(600):
    x, when, answer = signals(64)
    logits = detector(x)[0][when, torch.arange(64)]
    loss = nn.functional.binary_cross_entropy_with_logits(logits, answer)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
    optimizer.step()

x, when, answer = signals(1000)
with torch.no_grad():
    right = (detector(x)[0][when, torch.arange(1000)] > 0) == answer.bool()
accuracy = right.float().mean()
print(f"accuracy {accuracy:.3f}")
assert accuracy > 0.95

# %% [markdown]
# ## Stream
#
# `prepack()` lays the weights out once. Each call gets one step and the state of the call
# before.

# %%
detector.eval()
detector.lstm.prepack()
x, when, answer = signals(1)

state, heard = None, []
with torch.inference_mode():
    whole, _ = detector(x)
    for step in x:  # (N, 3), as it comes from a microphone
        logit, state = detector(step[None], state)
        heard.append(logit)
torch.testing.assert_close(torch.cat(heard), whole)  # the answers of the whole sequence

# %% [markdown]
# ## What 16 bits cost
#
# A narrow `weight_dtype` halves the bytes to read. Measure on your task what that costs:

# %%
x, when, answer = signals(2000)
with torch.inference_mode():
    detector.lstm.unpack()
    full = detector(x)[0][when, torch.arange(2000)]
    detector.lstm.prepack(torch.bfloat16)
    narrow = detector(x)[0][when, torch.arange(2000)]
changed = ((full > 0) != (narrow > 0)).float().mean()
print(f"{changed:.2%} of the answers change")
assert changed < 0.01

# %% [markdown]
# ## Many streams at once
#
# A server has many streams, and they do not begin together. One batch holds them all; `reset`
# starts a stream anew without touching the others:

# %%
detector.lstm.unpack()
a, b = signals(3)[0], signals(3)[0]
starts = torch.zeros(30, 3, dtype=torch.bool)
mixed = a.clone()
mixed[20:, 1] = b[:10, 1]  # stream 1 ends at step 20; a new one takes its place
starts[20, 1] = True
with torch.inference_mode():
    output, _ = detector.lstm(mixed, reset=starts)
    alone, _ = detector.lstm(b[:10, 1:2])
torch.testing.assert_close(output[20:, 1:2], alone)  # the new stream does not hear the old one
