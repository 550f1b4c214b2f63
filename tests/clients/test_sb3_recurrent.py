"""SB3-contrib's recurrent policy against the same with one call of the LSTM for all episodes."""

import sys
from pathlib import Path

import pytest
import torch

sb3_contrib = pytest.importorskip("sb3_contrib")
from comparing import gradients  # noqa: E402
from sb3_contrib.common.recurrent.type_aliases import RNNStates  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from sb3_recurrent import MlpLstmPolicy  # noqa: E402

CLIENT = "sb3-contrib"
STEPS, SEQUENCES, HIDDEN = 128, 8, 64


def agent(policy, **options):
    return sb3_contrib.RecurrentPPO(
        policy,
        "CartPole-v1",
        n_steps=64,
        batch_size=32,
        n_epochs=2,
        policy_kwargs={"lstm_hidden_size": HIDDEN, **options},
        seed=0,
        device="cpu",
    )


@pytest.mark.parametrize("critic", [{}, {"shared_lstm": True, "enable_critic_lstm": False}])
def test_it_learns_the_same(critic):
    """Rollouts, epochs with padded sequences, and what the log says of the last."""
    found = []
    for policy in ("MlpLstmPolicy", MlpLstmPolicy):
        learner = agent(policy, **critic)
        learner.learn(128)
        found.append([learner.logger.name_to_value[f"train/{name}"] for name in ("loss", "std")])
    # float32 from the same seed: rounding differs and grows with every step of the optimizer
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-4)


def test_a_batch_of_episodes_has_the_same_gradients(ratio):
    theirs, ours = agent("MlpLstmPolicy").policy, agent(MlpLstmPolicy).policy
    ours.load_state_dict(theirs.state_dict())
    rows = STEPS * SEQUENCES
    observations, actions = torch.randn(rows, 4), torch.randint(2, (rows,))
    starts = (torch.rand(rows) < 0.02).float()
    state = RNNStates(*(tuple(torch.randn(1, SEQUENCES, HIDDEN) for _ in "hc") for _ in "ac"))

    def loss(policy):
        values, log_p, entropy = policy.evaluate_actions(observations, actions, state, starts)
        return values.square().mean() + log_p.mean() + entropy.mean()

    # float32: rounding of 128 steps
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(loss(ours), loss(theirs), **tolerance)
    expected = gradients(theirs, loss(theirs))
    torch.testing.assert_close(gradients(ours, loss(ours)), expected, **tolerance)
    work = f"forward and backward, {SEQUENCES} sequences of {STEPS} steps"
    ratio(work, lambda: loss(theirs).backward(), lambda: loss(ours).backward())
