"""A recurrent PPO update in the manner of CleanRL: its loop over steps against one call.

CleanRL is scripts to copy from, not a library. The agent here is written after ppo_atari_lstm.py,
on vectors in place of pictures.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributions import Categorical

from lstm_kernels import LSTM

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from cleanrl_lstm import OneCall

CLIENT = "PPO as in CleanRL"
STEPS, ENVS, MINIBATCHES, EPOCHS = 128, 8, 4, 2
SIZES = {"observations": 16, "actions": 4, "hidden": 128}


class Agent(nn.Module):
    lstm_class = nn.LSTM

    def __init__(self, observations, actions, hidden):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(observations, 64), nn.ReLU())
        self.lstm = self.lstm_class(64, hidden)
        for name, parameter in self.lstm.named_parameters():
            if "bias" in name:
                nn.init.constant_(parameter, 0)
            else:
                nn.init.orthogonal_(parameter, 1.0)
        self.actor, self.critic = nn.Linear(hidden, actions), nn.Linear(hidden, 1)

    def get_states(self, x, lstm_state, done):
        """One call of the LSTM for each step, its state zeroed where an episode ended."""
        envs = lstm_state[0].shape[1]
        outputs = []
        features, done = self.network(x).unflatten(0, (-1, envs)), done.view(-1, envs)
        for now, ended in zip(features, done, strict=True):
            keep = (1.0 - ended)[None, :, None]
            h, c = lstm_state
            output, lstm_state = self.lstm(now[None], (keep * h, keep * c))
            outputs.append(output)
        return torch.cat(outputs).flatten(0, 1), lstm_state

    def forward(self, x, lstm_state, done):
        hidden, state = self.get_states(x, lstm_state, done)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(-1), state


class OurAgent(OneCall, Agent):
    lstm_class = LSTM


def agents():
    native, ours = Agent(**SIZES), OurAgent(**SIZES)
    ours.load_state_dict(native.state_dict())
    return native, ours


def rollout(agent):
    """What PPO learns from: a random walk of observations, and what the agent says of it."""
    shape = (STEPS, ENVS)
    state = tuple(torch.randn(1, ENVS, SIZES["hidden"]) / 2 for _ in "hc")
    batch = {
        "x": torch.randn(*shape, SIZES["observations"]),
        "done": (torch.rand(shape) < 0.05).float(),
        "action": torch.randint(SIZES["actions"], shape),
        "advantage": torch.randn(shape),
        "target": torch.randn(shape),
    }
    with torch.no_grad():
        policy, _, _ = agent(batch["x"].flatten(0, 1), state, batch["done"].flatten())
        batch["log_p"] = policy.log_prob(batch["action"].flatten()).view(shape)
    return batch, state


def updater(agent, batch, state):
    """PPO's epochs over minibatches of whole environments, clipped policy and value loss."""
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-4, eps=1e-5)

    def update():
        losses = []
        for chosen in [*torch.arange(ENVS).chunk(MINIBATCHES)] * EPOCHS:
            part = {name: value[:, chosen].flatten(0, 1) for name, value in batch.items()}
            first = tuple(value[:, chosen] for value in state)
            policy, value, _ = agent(part["x"], first, part["done"])
            likelier = (policy.log_prob(part["action"]) - part["log_p"]).exp()
            gain = part["advantage"]
            surrogate = torch.max(-gain * likelier, -gain * likelier.clamp(0.9, 1.1)).mean()
            of_value = 0.5 * (value - part["target"]).square().mean()
            loss = surrogate + 0.5 * of_value - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return update


def test_one_call_for_a_rollout_is_the_loop_over_its_steps():
    native, ours = agents()
    batch, state = rollout(native)
    results = [a.get_states(batch["x"].flatten(0, 1), state, batch["done"]) for a in (native, ours)]
    (hidden, last), (ours_hidden, ours_last) = results
    # float32: rounding of 128 steps, and no product of more than 128 terms
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(ours_hidden, hidden, **tolerance)
    torch.testing.assert_close(ours_last, last, **tolerance)


def test_an_update_changes_the_weights_in_the_same_way(ratio):
    native, ours = agents()
    batch, state = rollout(native)
    theirs, mine = updater(native, batch, state), updater(ours, batch, state)
    losses, our_losses = theirs(), mine()
    torch.testing.assert_close(torch.tensor(our_losses), torch.tensor(losses), rtol=1e-3, atol=1e-4)
    # Adam divides by the size of a gradient: a rounding error near zero moves a weight by as much
    # as the learning rate. Eight steps move it by 2e-3 at most, and rounding by far less than one.
    for name, weight in native.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), weight, rtol=1e-3, atol=1e-4)
    ratio(f"PPO update, {STEPS} steps of {ENVS} environments", theirs, mine)
