# %% [markdown]
# # The memory of a character model
#
# This tutorial trains a character model on Python's documentation for half a minute and looks
# at what its LSTM remembers. `make demo` is the longer version with a comparison against
# `nn.LSTM`.

# %%
import torch
from torch import nn

from lstm_kernels import LSTM, memory
from lstm_kernels.programs.characters.text import chunks, make_corpus, read_text

torch.manual_seed(0)
torch.set_num_threads(1)
corpus = make_corpus(read_text(None), batch_size=32, length=64)


class Model(nn.Module):
    def __init__(self, characters, hidden=128):
        super().__init__()
        self.embedding = nn.Embedding(characters, 32)
        self.lstm = LSTM(32, hidden, forget_bias=1.0)
        self.head = nn.Linear(hidden, characters)

    def forward(self, tokens, state=None):
        output, state = self.lstm(self.embedding(tokens), state)
        return self.head(output), state


model = Model(len(corpus.alphabet))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

# %% [markdown]
# ## Train
#
# The text is cut into 32 streams. Each batch continues the one before it, so the state is
# carried on.

# %%
state, losses = None, []
for _, (inputs, targets) in zip(range(200), chunks(corpus.train, 32, 64), strict=False):
    logits, state = model(inputs, state)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    state = tuple(s.detach() for s in state)
    losses.append(loss.item())
first, last = sum(losses[:5]) / 5, sum(losses[-20:]) / 20
print(f"cross entropy {first:.2f} nats at first, {last:.2f} at last")
assert last < 2.3

# %% [markdown]
# ## Record
#
# `record` runs the model and keeps each state and gate.

# %%
inputs, _ = next(chunks(corpus.validation, 32, 64))
recording = memory.record(model, inputs)
print(recording)

# %% [markdown]
# ## How long does each unit keep its content?
#
# A forget gate of f leaves the fraction f of a stored value. The half-life is the number of
# steps after which half is left.

# %%
life = memory.retention(recording)
ax = memory.plot.retention(life)
ax.set_title("Half-life of each unit's cell", loc="left")
half = life.half_life[0]
print(f"median {half.median():.1f}, longest {half.max():.0f} characters")

# %% [markdown]
# ## One unit along the text
#
# The unit with the longest half-life that still moves:

# %%
cell = recording.cell[0]
moving = cell.tanh().flatten(0, 1).std(0) > 0.3
order = life.order[0]
unit = int(order[moving[order]][0])
sentence = list(corpus.decode(inputs[:, 3]))
ax = memory.plot.text(sentence, cell[:, 3, unit])
ax.set_title("Cell state of one unit along the text", loc="left")

# %% [markdown]
# ## What does each state know of the past?
#
# A linear probe reads the character k steps back from each state, on held-out text.

# %%
from matplotlib import pyplot

pyplot.close("all")
known = memory.horizon(recording, inputs, max_lag=8)
ax = memory.plot.horizon(known)
ax.set_title("Accuracy of a probe for the character k steps back", loc="left")
h, c = known.hidden[0][0], known.cell[0][0]
print(f"the character just read: {h:.2f} from h_t, {c:.2f} from c_t")
assert h > known.chance[0]

# %% [markdown]
# ## Erase the memory
#
# Zero the cell state before step 32 and see how much the predictions change:

# %%
erased = memory.ablate(model, inputs, steps=32, state="cell")
change = erased.change.mean(1)
assert change[:32].max() == 0
assert change[32] > 0
figure, ax = pyplot.subplots(figsize=(7, 3), layout="constrained")
ax.plot(range(28, 64), change[28:])
ax.set_title("Change of the logits after the cell was erased before step 32", loc="left")
ax.set_xlabel("step")
