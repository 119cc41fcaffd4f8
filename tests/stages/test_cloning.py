"""Cloning: imitation trains the learner's own policy, in place, and the best epoch is kept."""

import numpy as np
import pytest
import torch
from building import agent, cloning, echo, learner_for
from refusing import refused
from stepping import Stepped

from rlstages import Expert, SuccessThreshold
from rlstages.demonstrations.episodes import Demonstration, Demonstrations, load_demonstrations
from rlstages.demonstrations.fitting import place_demonstrations
from rlstages.events import DemonstrationsReady, EpochFinished, Evaluated, Judged, Warned
from rlstages.learners.normalizer import normalizer_of
from rlstages.play.experts import showing
from rlstages.play.recording import record
from rlstages.stages.cloning import CloningRunner
from rlstages.stages.cloning_data import EpochBatches
from rlstages.stages.cloning_epochs import measure
from rlstages.storage.checkpoints import read_checkpoint, write_checkpoint


def shown_in(environment, episodes=12, expert="toys:tell"):
    who = Expert(expert, episodes=episodes)
    return record(environment, who, showing(who))


class Clone(Stepped):
    def __init__(self, stage, tmp_path, learner=None, seed=0, **settings):
        super().__init__(CloningRunner, stage, learner, seed, settings, run=tmp_path)
        self.file = self.runner._file

    def until(self, phase):
        while self.runner._phase != phase:
            self.runner.step()
        return self

    def epochs(self):
        return self.recorder.payloads(EpochFinished)


@pytest.mark.parametrize(
    ("policy", "sees", "acts"),
    [
        ("MlpPolicy", "vector", "discrete"),
        ("MlpPolicy", "vector", "box"),
        ("MlpPolicy", "vector", "multidiscrete"),
        ("MlpPolicy", "vector", "multibinary"),
        ("MlpPolicy", "discrete", "discrete"),
        ("MultiInputPolicy", "dict", "discrete"),
        ("MultiInputPolicy", "dict", "box"),
        ("CnnPolicy", "image", "discrete"),
    ],
)
def test_cloning_copies_the_expert_into_the_learners_own_policy(policy, sees, acts, tmp_path):
    environment = echo(sees=sees, acts=acts)
    rate = 1e-3 if policy == "CnnPolicy" else 2e-2
    stage = cloning(environment=environment, episodes=30, max_epochs=15, learning_rate=rate, evaluation_episodes=24)
    clone = Clone(stage, tmp_path, policy=policy, network=(32,))
    policy_object, network = clone.learner.policy, list(clone.learner.policy.parameters())

    result = clone.finish()

    assert clone.learner.policy is policy_object
    assert all(one is two for one, two in zip(network, clone.learner.policy.parameters(), strict=True))
    assert clone.learner.algorithm.model.policy is policy_object
    assert clone.epochs()[-1].metrics["loss"] < clone.epochs()[0].metrics["loss"]
    assert result.outcome == "completed"
    assert result.after.mean_return > result.before.mean_return + 2
    assert clone.learner.objective == "cloning"


@pytest.mark.parametrize(("acts", "measured"), [("discrete", "accuracy"), ("box", "error")])
def test_epochs_report_what_a_person_can_read(acts, measured, tmp_path):
    clone = Clone(cloning(environment=echo(acts=acts), episodes=20, max_epochs=4), tmp_path)

    clone.finish()

    for epoch in clone.epochs():
        assert set(epoch.metrics) == {"loss", "held_out_loss", measured}
    assert [epoch.epoch for epoch in clone.epochs()] == [1, 2, 3, 4]


def test_measuring_agrees_with_a_reckoning_by_hand():
    learner = learner_for(echo())
    observations, actions = shown_in(echo(), 4).transitions()

    measured = measure(learner.policy, observations, actions)

    with torch.no_grad():
        logits = learner.policy.get_distribution(torch.as_tensor(observations)).distribution.probs.numpy()
    expected = -np.log(logits[np.arange(len(actions)), actions]).mean()
    assert measured["loss"] == pytest.approx(expected, rel=1e-5)
    assert measured["accuracy"] == (logits.argmax(axis=1) == actions).mean()


def test_the_error_of_continuous_actions_is_the_root_mean_square():
    learner = learner_for(echo(acts="box"))
    observations, actions = shown_in(echo(acts="box"), 4).transitions()

    predicted = learner.policy.predict(observations, deterministic=True)[0]
    error = measure(learner.policy, observations, actions)["error"]

    assert error == pytest.approx(np.sqrt(((predicted - actions) ** 2).mean()), rel=1e-4)


def test_whole_episodes_are_held_out(tmp_path):
    clone = Clone(cloning(episodes=20, held_out=0.25), tmp_path).until("before")

    data = clone.runner._epochs.data
    shown = load_demonstrations(clone.file)
    learned, measured = shown.split(0.25, 0)
    assert len(measured) == clone.recorder.payloads(DemonstrationsReady)[0].held_out_episodes == 5
    np.testing.assert_array_equal(data.held_out[0], measured.transitions()[0])
    np.testing.assert_array_equal(data.learned[0], learned.transitions()[0])
    assert len(data.learned[1]) == 15 * 8


def test_training_stops_when_the_held_out_loss_has_not_fallen_and_keeps_the_best_epoch(tmp_path):
    stage = cloning(episodes=4, held_out=0.5, max_epochs=200, patience=3, learning_rate=0.3)
    clone = Clone(stage, tmp_path)
    kept = {}
    while clone.runner._phase != "after":
        clone.runner.step()
        if clone.epochs() and clone.runner._phase == "epochs":
            kept[clone.epochs()[-1].epoch] = clone.learner.weights()

    epochs = clone.epochs()
    losses = [epoch.metrics["held_out_loss"] for epoch in epochs]
    best = int(np.argmin(losses)) + 1
    assert len(epochs) == best + 3 < 200
    assert [epoch.best for epoch in epochs][best - 1] and not any(epoch.best for epoch in epochs[best:])
    assert all(torch.equal(value, kept[best][name]) for name, value in clone.learner.weights().items())
    assert all(torch.equal(value, kept[best][name]) for name, value in clone.learner.trusted.items())


def test_without_held_out_episodes_the_loss_itself_decides(tmp_path):
    clone = Clone(cloning(episodes=3, held_out=0.0, max_epochs=2), tmp_path)

    clone.finish()

    assert set(clone.epochs()[0].metrics) == {"loss"}
    assert clone.recorder.payloads(DemonstrationsReady)[0].held_out_episodes == 0


def test_one_episode_is_enough_and_a_batch_may_be_larger_than_all_of_them(tmp_path):
    clone = Clone(cloning(episodes=1, batch_size=1000, max_epochs=2), tmp_path)

    clone.finish()

    assert len(clone.epochs()) == 2


def test_statistics_come_from_the_demonstrations_before_the_first_epoch(tmp_path):
    environment = echo(scale=50.0)
    clone = Clone(cloning(environment=environment, episodes=20), tmp_path, normalize_observations=True)

    clone.until("before")

    learned = clone.runner._epochs.data.learned[0]
    statistics = normalizer_of(clone.learner.policy).standardizers["obs_"]
    assert statistics.mean.numpy() == pytest.approx(learned.mean(axis=0), rel=1e-3)
    assert statistics.count.item() == len(learned)
    frozen = statistics.mean.clone()
    clone.finish()
    assert torch.equal(frozen, statistics.mean)


def test_the_spread_of_continuous_actions_stops_at_its_floor(tmp_path):
    stage = cloning(environment=echo(acts="box"), episodes=20, max_epochs=40, patience=40, min_log_std=-0.7)
    clone = Clone(stage, tmp_path)

    clone.finish()

    lowest = clone.learner.policy.log_std.min().item()
    assert lowest >= -0.7
    assert lowest < -0.5


def test_only_the_best_episodes_are_cloned(tmp_path):
    mixed = Demonstrations((*shown_in(echo(), 3).episodes, *shown_in(echo(), 3, "toys:tell_zero").episodes))
    mixed.save(tmp_path / "mixed.safetensors")

    for settings, expected in (({"best": 2}, 2), ({"min_return": 8.0}, 3), ({"min_return": 8.0, "best": 1}, 1)):
        stage = cloning(demonstrations=tmp_path / "mixed.safetensors", **settings)
        clone = Clone(stage, tmp_path).until("before")
        kept = clone.recorder.payloads(DemonstrationsReady)[0]
        assert kept.score.episodes == expected
        assert kept.score.mean_return == 8.0
        assert (kept.score.steps, kept.recorded_steps) == (8 * expected, 8 * 6)
        assert len(load_demonstrations(clone.file)) == expected


def test_a_filter_that_leaves_nothing_is_refused(tmp_path):
    with refused("demonstrations-invalid", where="toys:tell"):
        Clone(cloning(min_return=100.0), tmp_path).until("before")


def test_images_may_be_shown_with_channels_last_or_first():
    environment = echo(sees="image")
    learner = learner_for(environment, agent(policy="CnnPolicy"))
    shown = shown_in(environment, 2)
    moved = Demonstrations(
        tuple(Demonstration(np.moveaxis(e.observations, -1, 1), e.actions, e.rewards) for e in shown.episodes)
    )
    spaces = learner.policy.observation_space, learner.policy.action_space

    placed = [place_demonstrations("shown", given, *spaces) for given in (shown, moved)]

    assert shown.episodes[0].observations.shape[1:] == (36, 36, 3)
    for one, other in zip(*(p.episodes for p in placed), strict=True):
        assert one.observations.shape[1:] == (3, 36, 36)
        np.testing.assert_array_equal(one.observations, other.observations)


def test_the_order_of_batches_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        batches = EpochBatches(np.arange(10).reshape(10, 1), np.arange(10), 4, seed)
        batches.epoch = epoch
        return [batch["acts"].tolist() for batch in batches]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert [len(batch) for batch in order(0, 0)] == [4, 4]


@pytest.mark.parametrize(("acts", "epochs"), [("discrete", 1), ("discrete", 3), ("box", 2)])
def test_resuming_in_the_middle_gives_what_an_uninterrupted_run_gives(acts, epochs, tmp_path):
    stage = cloning(environment=echo(acts=acts), episodes=10, max_epochs=5, until=SuccessThreshold(0.5))
    settings = {"normalize_observations": True}
    whole = Clone(stage, tmp_path, seed=3, **settings)
    whole.finish()

    first = Clone(stage, tmp_path, seed=3, **settings)
    while len(first.epochs()) < epochs:
        first.runner.step()
    write_checkpoint(tmp_path, "1", {"learner": first.learner.state_dict(), "runner": first.runner.state_dict()})
    state = read_checkpoint(tmp_path / "1")
    torch.manual_seed(99)
    second = Clone(stage, tmp_path, seed=3, **settings)
    second.learner.load_state_dict(state["learner"])
    second.runner.load_state_dict(state["runner"])
    second.learner.load_state_dict(state["learner"])
    result = second.finish()

    assert first.epochs() + second.epochs() == whole.epochs()
    assert result == whole.runner.result
    assert all(torch.equal(value, whole.learner.weights()[name]) for name, value in second.learner.weights().items())


def test_a_threshold_is_judged_on_fresh_episodes_of_the_frozen_clone(tmp_path):
    stage = cloning(episodes=30, max_epochs=15, learning_rate=2e-2, until=SuccessThreshold(0.5))
    clone = Clone(stage, tmp_path).until("after")
    frozen = clone.learner.weights()

    result = clone.finish()

    judged = clone.recorder.payloads(Judged)
    assert result.outcome == "reached" and result.verdict.met
    assert judged[-1].verdict == result.verdict
    assert [j.verdict.episodes for j in judged] == [4 * n for n in range(1, len(judged) + 1)]
    assert all(torch.equal(value, clone.learner.weights()[name]) for name, value in frozen.items())


def test_a_clone_that_cannot_do_it_misses_its_threshold(tmp_path):
    stage = cloning(expert=Expert("toys:tell_zero", episodes=5), max_epochs=5, until=SuccessThreshold(0.9))

    result = Clone(stage, tmp_path).finish()

    assert result.outcome == "missed"
    assert result.reason.startswith("The clone: success 0.00 over")
    assert result.verdict.futile


def test_the_policy_is_scored_before_and_after_on_the_same_episodes(tmp_path):
    clone = Clone(cloning(evaluation_episodes=6, max_epochs=6), tmp_path)

    result = clone.finish()

    scored = clone.recorder.payloads(Evaluated)
    assert [event.purpose for event in scored] == ["before", "after"]
    assert [event.score for event in scored] == [result.before, result.after]
    assert all(event.score.episodes >= 6 for event in scored)


def test_no_evaluation_where_none_is_asked_for(tmp_path):
    clone = Clone(cloning(evaluation_episodes=0), tmp_path)

    result = clone.finish()

    assert (result.before, result.after) == (None, None)
    assert clone.recorder.payloads(Evaluated) == []


def test_changed_demonstrations_are_not_gone_on_with(tmp_path):
    clone = Clone(cloning(), tmp_path).until("epochs")
    state = clone.runner.state_dict()
    content = bytearray(clone.file.read_bytes())
    content[-1] ^= 1
    clone.file.write_bytes(content)
    with refused("file-damaged", where="00-clone.safetensors"):
        Clone(cloning(), tmp_path).runner.load_state_dict(state)
    clone.file.unlink()
    with refused("file-damaged", where="00-clone.safetensors"):
        Clone(cloning(), tmp_path).runner.load_state_dict(state)


def test_it_says_where_the_last_epoch_that_was_allowed_is_the_best(tmp_path):
    def said(**settings):
        clone = Clone(cloning(episodes=20, max_epochs=2, **settings), tmp_path)
        clone.finish()
        best = clone.epochs()[-1].best
        return best, [told.message for told in clone.recorder.payloads(Warned) if "epochs was the best" in told.message]

    # After two epochs it is better than chance, and not yet what was shown.
    best, told = said(learning_rate=3e-3)
    assert best and len(told) == 1 and "and the last of 2 epochs was the best; raise max_epochs" in told[0]
    # One that is as good as its expert needs no more, and one whose loss went up would not get better.
    best, told = said(learning_rate=3e-2)
    assert best and not told
    best, told = said(learning_rate=5.0)
    assert not best and not told
