"""An agent that is killed ends as one that never was: the environments are part of what is saved."""

import subprocess
import sys

from tests.train import test_resume
from tests.train.test_resume import arrays, assert_same_run, finish, wait_for_step

FLAGS = [
    *("--task=ppo", "--model=actor_critic", "--model.widths=8", "--dataset=cartpole", "--dataset.num_environments=8"),
    *("--batch_size=4", "--task.rollout_steps=8", "--task.minibatches=2", "--task.update_epochs=2", "--ema_decay=0.9"),
    *("--schedule=linear", "--clip_norm=0.5", "--mesh=data:1", f"--steps={test_resume.STEPS}", "--log_every=7"),
    *("--eval_every=120", "--checkpoint_every=20", "--steps_per_dispatch=3", "--plots=false", "--tensorboard=false"),
    *("--dataset.validation_episodes=4", "--dataset.test_episodes=4"),
]


def start(workdir) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.train", *FLAGS, f"--workdir={workdir}"]
    return subprocess.Popen(
        command, env=test_resume.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_and_resumed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole))
    process = start(killed)
    wait_for_step(process, killed, 60)
    process.kill()
    process.communicate()
    assert "from the checkpoint at step" in finish(start(killed))
    assert_same_run(killed, whole)
    assert any("carry" in name for name in arrays(whole)), "the episodes that go on were compared, too"
