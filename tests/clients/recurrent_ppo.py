"""Recurrent PPO of SB3-contrib on CartPole: rollouts, training with episode starts, evaluation."""

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.evaluation import evaluate_policy


def train():
    agent = RecurrentPPO(
        "MlpLstmPolicy",
        "CartPole-v1",
        n_steps=128,
        batch_size=64,
        n_epochs=2,
        policy_kwargs={"lstm_hidden_size": 32},
        seed=0,
        device="cpu",
    )
    agent.learn(256)
    loss = float(agent.logger.name_to_value["train/loss"])
    reward, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=2)
    return agent.policy, [loss, reward]
