# %% [markdown]
# # Recurrent PPO with resets
#
# A cart carries a pole. The policy sees the position of the cart and the angle of the pole, but
# **no velocities**, so one observation is not enough: it must remember. Episodes end at
# different steps, so a rollout of N environments has starts in the middle. `reset=` handles
# them in one call.
#
# The physics are those of Barto, Sutton & Anderson (1983), as in Gymnasium's CartPole. It takes
# about half a minute on one core.

# %%
import math

import torch
from torch import nn

from lstm_kernels import LSTM

torch.manual_seed(0)
torch.set_num_threads(1)  # small calls
N, T = 16, 64  # environments, steps of a rollout


class Carts:
    """N carts at once. A fallen pole starts a new episode."""

    def __init__(self, count):
        self.state = torch.zeros(count, 4)
        self.age = torch.zeros(count)
        self._restart(torch.ones(count, dtype=torch.bool))

    def _restart(self, which):
        self.state[which] = 0.1 * torch.rand(int(which.sum()), 4) - 0.05
        self.age[which] = 0

    def observe(self):
        return self.state[:, [0, 2]] * torch.tensor([1.0, 10.0])  # no velocities

    def step(self, action):
        """Returns the observation, and whether a new episode begins with it."""
        x, v, angle, spin = self.state.unbind(1)
        force = 20.0 * action - 10.0
        sin, cos = angle.sin(), angle.cos()
        push = (force + 0.05 * spin.square() * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos.square() / 1.1))
        v_new = v + 0.02 * (push - 0.05 * turn * cos / 1.1)
        self.state = torch.stack([x + 0.02 * v, v_new, angle + 0.02 * spin, spin + 0.02 * turn], 1)
        self.age += 1
        x, angle = self.state[:, 0].abs(), self.state[:, 2].abs()
        done = (x > 2.4) | (angle > 12 * math.pi / 180) | (self.age >= 500)
        self._restart(done)
        return self.observe(), done


# %% [markdown]
# ## The policy
#
# `starts` is (T, N): True where the observation is the first of its episode.


# %%
class Policy(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.lstm = LSTM(2, hidden)
        self.actor = nn.Linear(hidden, 2)
        self.critic = nn.Linear(hidden, 1)
        nn.init.zeros_(self.actor.weight)

    def forward(self, x, state, starts):
        output, state = self.lstm(x, state, reset=starts)
        return self.actor(output), self.critic(output).squeeze(-1), state


policy = Policy()
optimizer = torch.optim.Adam(policy.parameters(), lr=4e-3)

# %% [markdown]
# ## A rollout: T calls of one step
#
# The state at the start of the rollout is kept for learning.

# %%
carts = Carts(N)
observation, start = carts.observe(), torch.ones(N, dtype=torch.bool)
state = (torch.zeros(1, N, 64), torch.zeros(1, N, 64))


@torch.no_grad()
def rollout():
    global observation, start, state
    first = state
    steps = []
    for _ in range(T):
        logits, value, state = policy(observation[None], state, start[None])
        choice = torch.distributions.Categorical(logits=logits[0])
        action = choice.sample()
        before = observation, start
        observation, start = carts.step(action)
        steps.append((*before, action, choice.log_prob(action), value[0], start))
    last = policy(observation[None], state, start[None])[1][0]
    return first, [torch.stack(column) for column in zip(*steps, strict=True)], last


# %% [markdown]
# ## Learning: one call over the whole rollout
#
# The same `starts` zero the states at the same steps. No splitting, no padding, no mask.


# %%
def learn(first, columns, last, gamma=0.99, trace=0.95):
    observations, starts, actions, old, values, done = columns
    rewards = 1.0 - done.float()
    advantages, running = torch.zeros(T, N), torch.zeros(N)
    for t in reversed(range(T)):  # generalized advantage estimation
        following = values[t + 1] if t + 1 < T else last
        going_on = 1.0 - done[t].float()
        error = rewards[t] + gamma * following * going_on - values[t]
        running = error + gamma * trace * going_on * running
        advantages[t] = running
    returns = advantages + values
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    for _ in range(4):
        logits, value, _ = policy(observations, first, starts)
        choice = torch.distributions.Categorical(logits=logits)
        ratio = (choice.log_prob(actions) - old).exp()
        clipped = ratio.clamp(0.8, 1.2)
        loss = -torch.min(ratio * advantages, clipped * advantages).mean()
        loss = loss + 0.01 * (value - returns).square().mean() - 0.005 * choice.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        optimizer.step()
    return float(done.sum())


# %%
ended = []
for _ in range(120):
    ended.append(learn(*rollout()))
length = [N * T * 10 / max(1.0, sum(ended[k : k + 10])) for k in range(0, 120, 10)]
print(f"steps between two falls: {length[0]:.0f} at first, {length[-1]:.0f} at last")
assert length[-1] > 3 * length[0]

# %%
from matplotlib import pyplot

figure, ax = pyplot.subplots(figsize=(7, 3), layout="constrained")
ax.plot(range(10, 121, 10), length, "o-")
ax.set_title("Steps between two falls", loc="left")
ax.set_xlabel("update")
ax.set_ylim(bottom=0)

# %% [markdown]
# ## What does it remember?
#
# Both states know the velocities that the policy cannot see. A linear probe reads them:

# %%
from lstm_kernels import memory

velocities, seen, begins = [], [], []
test = Carts(N)
observation, start = test.observe(), torch.ones(N, dtype=torch.bool)
state = (torch.zeros(1, N, 64), torch.zeros(1, N, 64))
with torch.no_grad():
    for _ in range(T):
        seen.append(observation)
        begins.append(start)
        velocities.append(test.state[:, [1, 3]].clone())
        logits, _, state = policy(observation[None], state, start[None])
        observation, start = test.step(logits[0].argmax(1))
    _, _, states = policy.lstm(torch.stack(seen), reset=torch.stack(begins), return_states=True)
known = memory.horizon(states, torch.stack(velocities), max_lag=0)
h, c = known.hidden[0][0], known.cell[0][0]
print(f"R2 of the velocities: from h_t {h:.2f}, from c_t {c:.2f}")
assert h > 0.5
