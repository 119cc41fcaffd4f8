"""Hypothesis strategies for specs, shared by several test modules."""

from hypothesis import settings
from hypothesis import strategies as st

from rlstages import Agent, BehaviorCloning, Curriculum, Environment, Expert, FineTuning, Linear
from rlstages.specs.criteria import RewardThreshold, SuccessThreshold

some = settings(max_examples=40)
keys = st.text(max_size=5).filter(lambda key: key != "$type")
words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
names = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20)
references = st.builds("{}:{}".format, words, words)
reals = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | reals | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
taken = {"id", "wrappers", "success", "vectorize", "kwargs"}
environments = st.builds(
    Environment,
    references | words,
    wrappers=st.lists(references, max_size=3),
    success=words | reals | references,
    vectorize=st.sampled_from(["auto", "in-process", "subprocess", "batched"]),
    kwargs=st.dictionaries(keys.filter(lambda key: key not in taken), plain, max_size=4),
)
experts = st.builds(Expert, references | st.just("runs/a") | st.just("a.zip"), episodes=st.integers(1, 1000))
success_thresholds = st.builds(
    SuccessThreshold,
    st.floats(0.2, 1.0),
    margin=st.floats(0.01, 0.1),
    window=st.integers(1, 200),
    max_episodes=st.integers(1, 1000),
)
reward_thresholds = st.builds(
    RewardThreshold,
    st.floats(-1e9, 1e9).filter(bool),
    margin=st.none() | st.floats(0.0, 1e3),
    window=st.integers(1, 200),
    min_episodes=st.integers(10, 50),
    max_episodes=st.integers(50, 500),
)
criteria = st.recursive(
    success_thresholds | reward_thresholds,
    lambda inner: (
        st.tuples(inner, inner).map(lambda two: two[0] & two[1])
        | st.tuples(inner, inner).map(lambda two: two[0] | two[1])
    ),
    max_leaves=4,
)
rates = st.floats(1e-9, 10.0)
schedules = rates | st.builds(Linear, rates, rates)
shared = {
    "learning_rate": st.none() | schedules,
    "ent_coef": st.none() | st.floats(0.0, 1.0),
    "max_grad_norm": st.none() | rates,
}
agents = st.builds(
    Agent,
    st.just("PPO"),
    policy=st.sampled_from(["MlpPolicy", "CnnPolicy", "MultiInputPolicy"]),
    network=st.lists(st.integers(1, 512), max_size=3),
    activation=st.sampled_from(["tanh", "relu"]),
    n_envs=st.integers(1, 64),
    n_steps=st.integers(256, 512),
    gamma=st.floats(0.01, 1.0),
    normalize_observations=st.booleans(),
    device=st.sampled_from(["cpu", "cuda", "cuda:1", "mps", "auto"]),
    clip_range=st.none() | schedules,
    clip_range_vf=st.none() | schedules,
    target_kl=st.none() | rates,
    **shared,
)
clonings = st.builds(
    BehaviorCloning,
    names,
    environments,
    expert=experts,
    until=st.none() | criteria,
    on_failure=st.sampled_from(["stop", "advance"]),
    held_out=st.floats(0.0, 0.9),
    best=st.none() | st.integers(1, 100),
    min_return=st.none() | reals,
)
fine_tunings = st.builds(
    FineTuning,
    names,
    environments,
    until=criteria,
    max_steps=st.integers(1_000_000, 10**12),
    anchor_kl=st.none() | st.floats(0.0, 10.0),
    demonstration_loss=st.just(0.0) | st.floats(0.0, 10.0),
    exploration=st.none() | st.floats(-10.0, 2.0),
    **shared,
)


def _curriculum(name, agent, stages, held_out):
    return Curriculum(name, agent=agent, stages=stages, held_out=held_out)


curricula = st.builds(
    _curriculum,
    names,
    agents,
    st.lists(clonings | fine_tunings, min_size=1, max_size=3, unique_by=lambda stage: stage.name),
    st.lists(environments, max_size=2),
)
