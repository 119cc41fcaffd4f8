"""How often each rule opens a gate too early, how surely it opens when it should, and what it costs in episodes.

    python benchmarks/gates.py --out docs/gates.md

Two kinds of policy are tried. Simulated ones stand still: their true value is known exactly. Real ones learn: they are
resampled from `runs/gates/*.json` (`benchmarks/gate_curves.py`), 512 fresh episodes of a curriculum's last variant
after every rollout; their true value is the mean of those and of the rollouts' before and after. The rules see what
they would see in training: a rollout's finished episodes, and as many fresh ones of the frozen policy as they ask for.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import stdtrit

from rlstages import RewardThreshold, SuccessThreshold
from rlstages.specs.criteria.episodes import Episode, wilson_interval
from rlstages.stages.fine_tuning.gate import Gate

N_ENVS = 16
"""Episodes finished in a rollout, and episodes in a wave of a confirmation."""
LIMIT = 1_000
"""Episodes after which a policy that stands still is given up."""


@dataclass(frozen=True)
class Policy:
    """What a rule can see of a policy, rollout by rollout.

    Attributes:
        pools: Values of its episodes (0 and 1 for success, else returns), one array for each rollout.
        truths: Its true value at each rollout.
    """

    pools: Sequence[np.ndarray]
    truths: Sequence[float]


@dataclass(frozen=True)
class Opening:
    """A gate opened.

    Attributes:
        rollout: After which rollout.
        episodes: Looked at until then, those of training included.
    """

    rollout: int
    episodes: int


class Source:
    """Deals a policy's episodes, and counts them."""

    def __init__(self, policy: Policy, rng: np.random.Generator) -> None:
        self._policy, self._rng, self.dealt = policy, rng, 0

    def __len__(self) -> int:
        return len(self._policy.pools)

    def draw(self, rollout: int) -> list[float]:
        """Return the values of one wave of episodes."""
        self.dealt += N_ENVS
        return self._rng.choice(self._policy.pools[rollout], N_ENVS).tolist()


Rule = Callable[[Source], Opening | None]
Threshold = SuccessThreshold | RewardThreshold


def window_mean(threshold: float, window: int) -> Rule:
    """Open when the last `window` training episodes average the threshold."""

    def rule(source: Source) -> Opening | None:
        recent: list[float] = []
        for rollout in range(len(source)):
            recent = (recent + source.draw(rollout))[-window:]
            if len(recent) == window and sum(recent) / window >= threshold:
                return Opening(rollout, source.dealt)
        return None

    return rule


def consecutive_evaluations(threshold: float, times: int) -> Rule:
    """Open when so many evaluations of one wave of fresh episodes in a row, one a rollout, average the threshold."""

    def rule(source: Source) -> Opening | None:
        row = 0
        for rollout in range(len(source)):
            row = row + 1 if np.mean(source.draw(rollout)) >= threshold else 0
            if row == times:
                return Opening(rollout, source.dealt)
        return None

    return rule


def lower_bound(null: float, window: int, by_success: bool) -> Rule:
    """Open when a 95 % lower bound for a fixed number of episodes, Wilson's or Student's, is above `null`."""

    def rule(source: Source) -> Opening | None:
        recent: list[float] = []
        for rollout in range(len(source)):
            recent = (recent + source.draw(rollout))[-window:]
            if len(recent) == window and _bound(recent, by_success) >= null:
                return Opening(rollout, source.dealt)
        return None

    return rule


def _bound(values: list[float], by_success: bool) -> float:
    if by_success:
        return wilson_interval(round(sum(values)), len(values), 0.90)[0]
    spread = float(np.std(values, ddof=1))
    return float(np.mean(values)) - float(stdtrit(len(values) - 1, 0.95)) * spread / math.sqrt(len(values))


def tested(threshold: Threshold) -> Rule:
    """Open as rlstages does: training episodes are tested as they come, and the frozen policy has to bear them out."""

    def rule(source: Source) -> Opening | None:
        gate, recent, step = Gate(threshold), list[Episode](), 0
        gate.begin(0)
        for rollout in range(len(source)):
            while True:
                played = _episodes(source.draw(rollout), step)
                step += 1
                gate.note(played)
                recent = (recent + played)[-threshold.window :]
                answers = {answer for *_, answer in gate.judge(np.full(N_ENVS, step), last=False)}
                if "open" in answers:
                    return Opening(rollout, source.dealt)
                if "wait" not in answers:
                    break
            gate.changed(step)
            if not gate.under_way:
                recent = []
            gate.propose(recent, np.full(N_ENVS, step), step)
        return None

    return rule


def _episodes(values: Iterable[float], step: int) -> list[Episode]:
    return [Episode(copy, 0, value, 1, value == 1.0, step) for copy, value in enumerate(values)]


def rules(threshold: Threshold) -> dict[str, Rule]:
    """Return every rule, set for one threshold."""
    goal, by_success = threshold.threshold, isinstance(threshold, SuccessThreshold)
    null = goal - margin_of(threshold)
    return {
        "mean of the last 20": window_mean(goal, 20),
        "mean of the last 50": window_mean(goal, 50),
        "mean of the last 100": window_mean(goal, 100),
        "1 evaluation of 16": consecutive_evaluations(goal, 1),
        "3 evaluations of 16 in a row": consecutive_evaluations(goal, 3),
        "lower bound on the last 50": lower_bound(null, 50, by_success),
        "**test in training, then frozen**": tested(threshold),
    }


def margin_of(threshold: Threshold) -> float:
    """Return how far below the threshold a gate may open."""
    return threshold.margin if threshold.margin is not None else 0.05 * abs(threshold.threshold)


# --- policies that stand still ---------------------------------------------------------------------------------


def solving(share: float) -> Policy:
    """Return a policy that solves this share of its episodes, for ever."""
    size = 10_000
    pool = np.arange(size) < round(share * size)
    return standing(pool.astype(float))


def scoring(mean: float, shape: str) -> Policy:
    """Return a policy whose returns have this mean and a shape: bell, rare crashes, or a long tail upwards."""
    at = (np.arange(4_000) + 0.5) / 4_000
    pool = {
        "bell": 0.2 * stats.norm.ppf(at),
        "crashes": np.where(at < 1 / 30, -1.0, 0.02 * stats.norm.ppf(at)),
        "tail": 0.2 * stats.expon.ppf(at),
    }[shape]
    return standing(abs(mean) * (pool - pool.mean()) + mean)


def standing(pool: np.ndarray) -> Policy:
    """Return a policy that never changes."""
    rollouts = LIMIT // N_ENVS
    return Policy([pool] * rollouts, [float(pool.mean())] * rollouts)


def simulate(threshold: Threshold, policies: dict[str, Policy], runs: int) -> list[str]:
    """Return the rows of a table: a rule, then share opened and median episodes for each policy."""
    rows = []
    for name, rule in rules(threshold).items():
        cells = [_opened(policy, rule, runs) for policy in policies.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def _opened(policy: Policy, rule: Rule, runs: int) -> str:
    rng = np.random.default_rng(1)
    found = [opening for _ in range(runs) if (opening := rule(Source(policy, rng))) and opening.episodes <= LIMIT]
    if not found:
        return "0 %"
    return f"{100 * len(found) / runs:.1f} % ({np.median([opening.episodes for opening in found]):.0f})"


def reliability(threshold: Threshold, policy: Policy, runs: int, within: int) -> float:
    """Return how often our rule opens within so many episodes of a policy that clears the threshold."""
    rng, rule = np.random.default_rng(2), tested(threshold)
    found = [rule(Source(policy, rng)) for _ in range(runs)]
    return sum(opening is not None and opening.episodes <= within for opening in found) / runs


# --- policies that learn ---------------------------------------------------------------------------------------


def learned(file: Path) -> Policy:
    """Read a recorded curve."""
    pools = [np.array(pool) for pool in json.loads(file.read_text())]
    means = [float(pool.mean()) for pool in pools]
    near = [means[max(0, i - 1) : i + 2] for i in range(len(means))]
    return Policy(pools, [sum(around) / len(around) for around in near])


def replay(policies: list[Policy], thresholds: list[Threshold], runs: int) -> list[str]:
    """Return the rows of a table: how each rule fares over all curves and thresholds together."""
    rows = []
    for name in rules(thresholds[0]):
        opened = wrong = 0
        early: list[float] = []
        late: list[int] = []
        rng = np.random.default_rng(3)
        for threshold in thresholds:
            scale = 1.0 if isinstance(threshold, SuccessThreshold) else abs(threshold.threshold)
            for policy in policies:
                clear = [t for t, truth in enumerate(policy.truths) if truth >= threshold.threshold + 0.02 * scale]
                for _ in range(runs):
                    source = Source(policy, rng)
                    opening = rules(threshold)[name](source)
                    if opening is None:
                        continue
                    opened += 1
                    truth = policy.truths[opening.rollout]
                    wrong += truth < threshold.threshold - margin_of(threshold)
                    early.append((truth - threshold.threshold) / scale)
                    if clear:
                        late.append(opening.rollout - clear[0])
        total = runs * len(thresholds) * len(policies)
        rows.append(
            f"| {name} | {100 * opened / total:.0f} % | {100 * wrong / max(1, opened):.1f} % "
            f"| {_median(early, 100)} | {_median(late)} |"
        )
    return rows


def _median(values: Sequence[float], unit: float = 1.0) -> str:
    return f"{unit * float(np.median(values)):+.1f}" if values else "-"


# --- the page --------------------------------------------------------------------------------------------------


def page(runs: int, replays: int) -> str:
    """Return everything as Markdown."""
    parts = [HEAD.format(runs=f"{runs:,}", replays=replays)]
    nine = SuccessThreshold(0.9)
    shares = {f"true {share:g}": solving(share) for share in (0.80, 0.85, 0.88, 0.92, 0.95)}
    parts += ["## Success, threshold 0.9, margin 0.05", "", *_header("rule", shares), *simulate(nine, shares, runs), ""]
    score = RewardThreshold(200.0)
    for shape in ("bell", "crashes", "tail"):
        means = {f"true {mean:g}": scoring(mean, shape) for mean in (180.0, 190.0, 196.0, 204.0, 215.0)}
        title = f"## Return, threshold 200, margin 10 (5 %), {SHAPES[shape]}"
        parts += [title, "", *_header("rule", means), *simulate(score, means, runs), ""]
    columns = ["true value", "within (training episodes)", "opened"]
    parts += ["## How reliably the gate of rlstages opens", "", RELIABILITY, "", *_header("threshold", columns)]
    for goal, within in ((0.6, 600), (0.7, 600), (0.8, 600), (0.9, 300), (0.95, 300)):
        threshold = SuccessThreshold(goal)
        share = reliability(threshold, solving(goal + 0.02), runs, within)
        parts.append(f"| success {goal:g} | {goal + 0.02:g} | {within} | {100 * share:.1f} % |")
    for shape in ("bell", "crashes", "tail"):
        share = reliability(score, scoring(204.0, shape), runs, 600)
        parts.append(f"| return 200, {SHAPES[shape]} | 204 | 600 | {100 * share:.1f} % |")
    parts.append("")
    files = sorted(Path("runs/gates").glob("*.json"))
    for kind, names, thresholds in REAL:
        curves = [learned(file) for file in files if file.name.startswith(names)]
        if curves:
            goals = ", ".join(f"{threshold.threshold:g}" for threshold in thresholds)
            parts += [f"## Real curves: {kind}, {len(curves)} runs, thresholds {goals}", ""]
            columns = [
                "opened",
                "wrongly, of those",
                "median of true value minus threshold, %",
                "median delay, rollouts",
            ]
            parts += _header("rule", columns)
            parts += [*replay(curves, thresholds, replays), ""]
    return "\n".join(parts)


def _header(first: str, columns: Iterable[str]) -> list[str]:
    names = list(columns)
    return [f"| {first} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]


HEAD = """# Gates: which rules open too early, and how often

Made by `python benchmarks/gates.py --out docs/gates.md`. The [glossary](glossary.md) explains 'gate'.

**Simulated policies** have a known and constant true value. Each cell is for {runs} of them, each with 1,000 episodes,
16 per rollout. A cell gives the share of policies for which the gate opened and, in brackets, the median number of
episodes until then. Training episodes are included in that number; rlstages trains on all but the last few. A gate that
opens while the true value is below threshold minus margin has opened *wrongly*.

**Real curves** are recorded training runs, each resampled {replays} times.
"""
RELIABILITY = "The true value exceeds the threshold by 0.02, or by 2 % of the return."
SHAPES = {
    "bell": "bell-shaped returns",
    "crashes": "one episode in thirty crashes",
    "tail": "a long tail upwards",
}
REAL: list[tuple[str, tuple[str, ...], list[Threshold]]] = [
    (
        "success in rooms, pointmaze and minigrid-multiroom",
        ("rooms", "pointmaze", "minigrid"),
        [SuccessThreshold(goal) for goal in (0.8, 0.85, 0.9)],
    ),
    ("return in cartpole", ("cartpole",), [RewardThreshold(goal) for goal in (450.0, 475.0)]),
]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--replays", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = page(options.runs, options.replays)
    print(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
