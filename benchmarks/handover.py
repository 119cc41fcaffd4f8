"""What each protection of the hand-over from cloning to reinforcement learning is worth, alone and together.

    python benchmarks/handover.py --seeds 0 1 2 3 4 --out docs/handover.md

For each task and seed one clone is made. Then, with each set of protections, the same clone is fine-tuned for a few
rollouts in the task's last variant, where reward is scarce, and plays 200 episodes before and after, on the same seeds,
in that variant and in one between it and the clone's own. Scores are normalised: chance is 0, the expert 1. What the
policy explores in the last variant is measured before and after. Gates stay shut. What was measured before lies in
`runs/handover/` and is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlstages import Curriculum, Environment, FineTuning, RewardThreshold, load_curriculum, train
from rlstages.environments.make import make_vec_env
from rlstages.environments.seeding import Purpose
from rlstages.experiments.compare.statistics import Estimate, estimate
from rlstages.learners.exploration import measure_exploration
from rlstages.learners.learner import Learner
from rlstages.play.chance_and_expert import expert_of, measure_baselines
from rlstages.play.play import play_episodes, play_wave
from rlstages.play.saved_policies import load_learner
from rlstages.specs.criteria.baselines import normalized, value_of
from rlstages.specs.criteria.episodes import score
from rlstages.specs.stages.fine_tuning import UNPROTECTED

BASE = Path("runs/handover")
SEED = 4_000_000
EPISODES, EXPERT_EPISODES = 200, 200
TASKS = ["rooms", "pointmaze", "minigrid-multiroom", "lunarlander"]
SHUT = RewardThreshold(1e300)
FILES = {file.stem: file for file in sorted(Path(__file__).parent.glob("misleading/*.py"))}
"""Tasks whose expert misleads in the last variant."""
STEPS = {"lunarlander": 81_920}
"""Environment steps of fine-tuning; 15 rollouts where nothing is said."""
BETWEEN = {"minigrid-multiroom": 2}
"""The stage between, the last but one where nothing is said: N4-S5, which the clone can solve now and then."""


@dataclass(frozen=True)
class Variant:
    """A set of protections.

    Attributes:
        name: In the table.
        change: Settings of the fine-tuning stage, given the noise of a network that is built anew.
        continuous: Whether it only makes sense with continuous actions.
    """

    name: str
    change: Callable[[float], Mapping[str, Any]]
    continuous: bool = False


ALL: dict[str, Any] = {"critic_fit_steps": 8_192, "anchor_kl": 0.1}
"""Of each set but the first, which has them only where the guard asks for them; a set's own settings go before."""
VARIANTS = [
    Variant("**by evidence (the default)**", lambda noise: dict.fromkeys(ALL)),
    Variant("all", lambda noise: {}),
    Variant("none", lambda noise: {**UNPROTECTED, "exploration": noise}),
    Variant("only the critic fit", lambda noise: {"anchor_kl": 0.0, "exploration": noise}),
    Variant("only the clone's noise", lambda noise: UNPROTECTED, continuous=True),
    Variant("only the KL anchor", lambda noise: {"critic_fit_steps": 0, "exploration": noise}),
    Variant("all but the critic fit", lambda noise: {"critic_fit_steps": 0}, continuous=True),
    Variant("all but the clone's noise: log std 0", lambda noise: {"exploration": noise}, continuous=True),
    Variant("all but the KL anchor", lambda noise: {"anchor_kl": 0.0}, continuous=True),
    Variant("all and a demonstration loss of 0.1", lambda noise: {"demonstration_loss": 0.1}),
]


@dataclass(frozen=True)
class Task:
    """A hand-over.

    Attributes:
        curriculum: A built-in one.
        measure: What counts: `"success"` or `"return"`.
        between: Where the clone can do something: whether it forgets shows here.
        last: Where it is fine-tuned.
    """

    curriculum: Curriculum
    measure: str
    between: Environment
    last: Environment


def load_task(name: str) -> Task:
    """Read a task from a built-in curriculum, or one of `FILES`."""
    curriculum = load_curriculum(str(FILES.get(name, name)))
    between, last = curriculum.stages[BETWEEN.get(name, -2)], curriculum.stages[-1]
    assert isinstance(last, FineTuning)
    measure = "success" if last.until.needs_success else "return"
    return Task(curriculum, measure, between.environment, last.environment)


def ends_of(task: Task, environment: Environment) -> tuple[float, float]:
    """Return what chance and the expert score."""
    expert = expert_of(task.curriculum.stages)
    ends = measure_baselines(environment, expert, EXPERT_EPISODES, 0, trust_pickle=False).ends(task.measure)
    assert ends is not None, f"the expert of {task.curriculum.name} is no better than chance in {environment}"
    return ends


def tried(task: Task, variant: Variant, clone: Path, out: Path, seed: int) -> Learner:
    """Fine-tune a clone in the last variant, and return it."""
    last = task.curriculum.stages[-1]
    assert isinstance(last, FineTuning)
    stage = replace(last, exploration=None, evaluation_episodes=0)
    stage = replace(stage, **{**ALL, **variant.change(task.curriculum.agent.log_std_init)})
    return handed_over(task, stage, clone, out, seed, STEPS.get(task.curriculum.name, 15 * rollout_of(task)))


def handed_over(task: Task, stage: FineTuning, clone: Path, out: Path, seed: int, steps: int) -> Learner:
    """Fine-tune a clone in one stage, whose gate stays shut, and return the learner as it is then.

    Args:
        task: Whose agent it is.
        stage: Its critic fit comes on top of the steps, so that every variant makes as many updates of the policy.
        clone: The run that left it.
        out: The run directory to make.
        seed: Of the run.
        steps: Environment steps of updates.
    """
    fit = math.ceil((stage.critic_fit_steps or 0) / rollout_of(task)) * rollout_of(task)
    learners: list[Learner] = []

    def watch(learner: Learner) -> str | None:
        learners[:] = [learner]
        return "This is what was asked for." if learner.global_step >= fit + steps else None

    curriculum = Curriculum("handover", agent=task.curriculum.agent, stages=[replace(stage, until=SHUT)])
    train(curriculum, seed=seed, out=out, initial=clone, watch=watch)
    return learners[0]


def rollout_of(task: Task) -> int:
    """Return the environment steps of a rollout."""
    return task.curriculum.agent.rollout_steps


def played(task: Task, environment: Environment, learner: Learner, seed: int) -> float:
    """Return what a policy scores."""
    deterministic = task.curriculum.agent.action_mode == "deterministic"
    env = make_vec_env(environment, 40, SEED, 0, Purpose.EVALUATION)
    try:
        episodes = play_episodes(learner.algorithm, env, EPISODES, SEED + seed, 0, deterministic)
        return value_of(score(episodes), task.measure)
    finally:
        env.close()


class Seen:
    """Plays as an engine does, and keeps the observations.

    Args:
        learner: Whose engine plays.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.observations: list[Any] = []

    def player(self, seed: int, deterministic: bool) -> Callable[[Any], np.ndarray]:
        """Return a function from observations to actions."""
        act = self.learner.algorithm.engine.player(seed, deterministic)

        def noting(observations: Any) -> np.ndarray:
            self.observations.append(np.array(observations))
            return act(observations)

        return noting


def explored(task: Task, learner: Learner, seed: int) -> float:
    """Return how much a policy tries in the last variant's states that it meets.

    It is the entropy as a share of the largest one, or the standard deviation as a share of half an action's range.
    """
    seen, env = Seen(learner), make_vec_env(task.last, 40, SEED, 0, Purpose.EVALUATION)
    try:
        play_wave(seen, env, SEED + seed, deterministic=False)
    finally:
        env.close()
    measured = measure_exploration(learner.policy, np.concatenate(seen.observations))
    return measured.get("std", measured.get("entropy", math.nan))


def cloned(task: Task, out: Path, seed: int) -> Learner:
    """Run the first stage alone, and return its clone."""
    first = Curriculum("clone", agent=task.curriculum.agent, stages=task.curriculum.stages[:1])
    train(first, seed=seed, out=out)
    return load_learner(out)


def measure(name: str, seeds: list[int]) -> dict[str, Any]:
    """Measure a task: scores before and after, for each variant and seed, in both environments."""
    file = BASE / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"ends": {}, "runs": {}}
    task = load_task(name)
    places = {"between": task.between, "last": task.last}
    for place, environment in places.items():
        if place not in found["ends"]:
            found["ends"][place] = ends_of(task, environment)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as directory:
            clone, before, tries = Path(directory) / "clone", dict[str, float](), 0.0
            for variant in VARIANTS:
                key = f"{variant.name} / {seed}"
                if key in found["runs"] or (variant.continuous and not _is_continuous(name)):
                    continue
                if not before:
                    learner = cloned(task, clone, seed)
                    before = {place: played(task, where, learner, seed) for place, where in places.items()}
                    tries = explored(task, learner, seed)
                learner = tried(task, variant, clone, Path(directory) / f"run-{len(found['runs'])}", seed)
                found["runs"][key] = {
                    place: [before[place], played(task, where, learner, seed)] for place, where in places.items()
                }
                found["runs"][key]["explored"] = [tries, explored(task, learner, seed)]
                _keep(file, found)
                print(name, key, found["runs"][key], flush=True)
    return found


def _is_continuous(name: str) -> bool:
    return name in ("pointmaze", "lunarlander")


def _keep(file: Path, found: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unready = file.with_suffix(".part")
    unready.write_text(json.dumps(found))
    os.replace(unready, file)


def table(found: Mapping[str, dict[str, Any]], seeds: list[int]) -> str:
    """Return the Markdown page's table: the change in normalised score, with its interval over seeds, and the worst."""
    lines = []
    for name, result in found.items():
        lines += [f"## {name}", ""]
        for place in ("between", "last"):
            ends = tuple(result["ends"][place])
            before = [normalized(_run(result, VARIANTS[0], seed)[place][0], ends) for seed in seeds]
            lines.append(f"The clones score {_spread(before)} in the {WORDS[place]}.")
        word = "Noise" if _is_continuous(name) else "Entropy"
        tried = [_run(result, VARIANTS[0], seed)["explored"][0] for seed in seeds]
        lines += [
            f"{word} of the clones in the last variant: {_spread(tried)}.",
            "",
            f"| protections | between: change | worst seed | last: change | worst seed | {word.lower()} after |",
            "|---|---|---|---|---|---|",
        ]
        for variant in VARIANTS:
            if f"{variant.name} / {seeds[0]}" not in result["runs"]:
                continue
            cells = []
            for place in ("between", "last"):
                ends = tuple(result["ends"][place])
                pairs = [[normalized(value, ends) for value in _run(result, variant, seed)[place]] for seed in seeds]
                changes = [after - before for before, after in pairs]
                cells += [_interval(estimate(changes)), f"{min(changes):+.2f}"]
            cells.append(_spread([_run(result, variant, seed)["explored"][1] for seed in seeds]))
            lines.append(f"| {variant.name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


WORDS = {"between": "variant between", "last": "last variant"}


def _run(result: dict[str, Any], variant: Variant, seed: int) -> dict[str, list[float]]:
    run: dict[str, list[float]] = result["runs"][f"{variant.name} / {seed}"]
    return run


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _interval(found: Estimate) -> str:
    return f"{found.value:+.2f}" + ("" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]")


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = HEAD + table({name: measure(name, options.seeds) for name in options.tasks}, options.seeds)
    print(text)
    if options.out is not None:
        options.out.write_text(text)


HEAD = """# What protects the hand-over

Made by `python benchmarks/handover.py --out docs/handover.md`. One clone for each seed is fine-tuned for 15 rollouts
(lunarlander: 5) in the curriculum's last variant, where it hardly finds reward, with each set of protections. Scores
are normalised (chance 0, the expert 1), over 200 episodes on the same seeds before and after. A change below 0 in the
variant between is forgetting. Intervals are those of the interquartile mean over seeds. Entropy is the mean over the
states that the policy meets in the last variant, as a share of the largest entropy; noise is the standard deviation of
continuous actions, as a share of half their range. In brackets are the lowest and the highest of the seeds.

"""

if __name__ == "__main__":
    main()
