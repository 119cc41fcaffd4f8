"""Commands whose runs go to a W&B server: where a key leads, what the run says of itself, and what it came from."""

import json
import os
import re
import subprocess
import sys
from contextlib import closing

import pytest
import wandb_server
from building import COMMAND, payloads, surroundings

from rlstages.events import StageFinished
from rlstages.storage.record import read_record

pytest.importorskip("wandb")

PLAN = """
import os
from rlstages import *

def curriculum(rate: float = 1e-2, steps: int = 4_000, expert: str = "toys:tell", least: float = 0.5):
    echo = Environment("toys:Echo")
    agent = Agent("PPO", n_envs=4, n_steps=16, batch_size=32, n_epochs=2, network=(16,), learning_rate=rate)
    quick = dict(max_epochs=2, batch_size=16, evaluation_episodes=4)
    until = SuccessThreshold(least, window=8, max_episodes=120)
    return Curriculum("small", agent=agent, stages=[
        BehaviorCloning("clone", echo, expert=Expert(expert, episodes=6), **quick),
        FineTuning("tune", echo, until=until, max_steps=steps, critic_fit_steps=128, evaluation_episodes=4),
    ])
"""
LOGIN = "import sys, wandb; assert wandb.login(key=sys.argv[1], host=sys.argv[2] or None, verify=False)"


@pytest.fixture
def server():
    with closing(wandb_server.Server()) as server:
        yield server


@pytest.fixture
def place(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "small.py").write_text(PLAN)
    return tmp_path


def python(place, code, *arguments, **variables):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=place,
        env=surroundings(place / "home", **variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def rlstages(place, *arguments, code=0, **variables):
    done = python(place, COMMAND, *arguments, **variables)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def key(server):
    return {"WANDB_API_KEY": wandb_server.KEY, "WANDB_BASE_URL": server.url}


MODE = "from rlstages.tracking.wandb.session import tracking_mode; print(tracking_mode('auto'))"
DEFAULT, EARLIER = "", "https://api.wandb.ai"


@pytest.mark.parametrize("host", [DEFAULT, EARLIER, "http://127.0.0.1:9"], ids=["default", "earlier", "own"])
def test_a_key_that_wandb_has_stored_means_online(host, place):
    assert python(place, MODE).stdout == "offline\n"
    # A login that is not silent asks the server whose key it is, and without a network it may wait for minutes.
    assert python(place, LOGIN, wandb_server.KEY, host, WANDB_SILENT="true").returncode == 0
    assert python(place, MODE).stdout == "online\n"
    for said, mode in (("offline", "offline"), ("disabled", "none")):
        assert python(place, MODE, WANDB_MODE=said).stdout == f"{mode}\n"
    assert python(place, MODE, WANDB_BASE_URL="http://127.0.0.1:10").stdout == "offline\n", "of another server"


def test_a_key_of_the_earlier_default_server_counts_for_the_new_one(place):
    """What `wandb login` of earlier versions has left: an entry in netrc, and no settings."""
    code = (
        "import sys; from wandb.sdk.lib.wbauth import write_netrc_auth as w; w(host=sys.argv[1], api_key=sys.argv[2])"
    )
    python(place, code, EARLIER, wandb_server.KEY)
    assert python(place, MODE).stdout == "online\n"


def test_help_does_not_import_wandb(place):
    watched = "import sys, atexit; atexit.register(lambda: print('wandb' in sys.modules))\n" + COMMAND
    assert python(place, watched, "train", "--help").stdout.endswith("\nFalse\n")


def test_training_process_does_not_import_wandb(place):
    watched = "import sys, atexit; atexit.register(lambda: print('wandb' in sys.modules))\n" + COMMAND
    assert python(place, watched, "train", "small.py", "--out", "run").stdout.endswith("\nFalse\n")
    assert list((place / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.slow
def test_login_leads_to_an_online_run_that_says_where_it_is(place, server):
    assert python(place, LOGIN, wandb_server.KEY, server.url).returncode == 0
    options = ["--notes", "first try", "--tag", "mine", "-p", "rate=0.02", "-p", "steps=5000"]
    told = rlstages(place, "train", "small.py", "--out", "runs/one", *options, WANDB_TAGS="shell")
    run_id = read_record(place / "runs" / "one").run_id
    url = f"{server.url}/tester/rlstages/runs/{run_id}"
    assert f"\nW&B: {url}\n" in told
    assert f"\nW&B: {url}\n" in rlstages(place, "show", "runs/one")
    about = json.loads(rlstages(place, "show", "runs/one", "--json"))
    assert (about["wandb"], about["parameters"]) == ({"url": url}, {"rate": 0.02, "steps": 5_000})
    asked, config = server.runs[run_id]["asked"], server.runs[run_id]["config"]
    assert (asked["notes"], asked["tags"], asked["jobType"]) == ("first try", ["mine", "shell"], "train")
    assert sorted(set(config) - {"_wandb"}) == CONFIG
    values = {name: told["value"] for name, told in config.items()}
    assert (values["rate"], values["steps"], values["agent.learning_rate"]) == (0.02, 5_000, 0.02)
    assert not list((place / "runs" / "one" / "wandb").glob("*run-*"))


CONFIG = sorted(
    [
        *("rate", "steps"),
        *("curriculum", "curriculum_json", "digest", "seed", "held_out", "retention_share"),
        *(f"version.{name}" for name in ("python", "rlstages", "gymnasium", "stable-baselines3", "torch", "numpy")),
        *(f"version.{name}" for name in ("imitation", "wandb")),
        *(f"agent.{name}" for name in ("algorithm", "policy", "network", "activation", "n_envs", "n_steps", "gamma")),
        *(f"agent.{name}" for name in ("gae_lambda", "normalize_observations", "normalize_rewards", "log_std_init")),
        *(f"agent.{name}" for name in ("action_mode", "device", "engine", "learning_rate", "ent_coef", "vf_coef")),
        *(f"agent.{name}" for name in ("max_grad_norm", "clip_range", "n_epochs", "batch_size")),
        *(f"stage.{stage}.environment.id" for stage in ("clone", "tune")),
        *(
            f"stage.{stage}.environment.{name}"
            for stage in ("clone", "tune")
            for name in ("wrappers", "success", "success_at")
        ),
        *(f"stage.{stage}.environment.{name}" for stage in ("clone", "tune") for name in ("vectorize", "step_timeout")),
        *(f"stage.{stage}.{name}" for stage in ("clone", "tune") for name in ("type", "evaluation_episodes")),
        *(f"stage.clone.expert.{name}" for name in ("source", "kind", "episodes", "algorithm")),
        *(f"stage.clone.{name}" for name in ("on_failure", "max_epochs", "learning_rate", "batch_size", "patience")),
        *(f"stage.clone.{name}" for name in ("entropy_weight", "l2_weight", "held_out", "min_log_std")),
        *(
            f"stage.tune.until.{name}"
            for name in ("type", "threshold", "margin", "window", "max_episodes", "frozen_episodes")
        ),
        *(f"stage.tune.{name}" for name in ("learning_rate", "ent_coef", "vf_coef", "max_grad_norm", "clip_range")),
        *(f"stage.tune.{name}" for name in ("n_epochs", "batch_size", "max_steps", "on_timeout", "rehearse")),
        *(f"stage.tune.{name}" for name in ("on_collapse", "max_returns", "critic_fit_steps", "anchor_kl")),
        *(f"stage.tune.{name}" for name in ("anchor_steps", "demonstration_loss", "demonstration_steps")),
        *(f"stage.tune.{name}" for name in ("guard_steps", "guard_rollbacks", "explore_again")),
    ]
)


def test_offline_run_says_the_command_that_uploads_it(place, server):
    told = rlstages(place, "train", "small.py", "--out", "my runs/one")
    (file,) = (place / "my runs" / "one" / "wandb").glob("offline-run-*")
    assert f"\nW&B: offline, in 'my runs/one/wandb/{file.name}'\n" in told
    shown = rlstages(place, "show", "my runs/one")
    (line,) = [line for line in shown.splitlines() if line.startswith("Upload it: ")]
    assert f"\n{line}\n" in told
    command = line.removeprefix("Upload it: ").replace("wandb sync", f"{sys.executable} -m wandb sync")
    home = surroundings(place / "home", **key(server))
    subprocess.run(command, shell=True, cwd=place, env=home, check=True, capture_output=True, timeout=200)
    (run,) = server.runs.values()
    assert run["summary"]["outcome"] == "reached"
    assert ("small-policy", "final") in server.aliases


@pytest.mark.slow
def test_python_and_notebooks_print_where_the_run_is(place):
    code = "import rlstages; rlstages.train('small.py', out='run', track='offline', parameters={'rate': '0.02'})"
    where, upload = python(place, code).stdout.splitlines()
    assert where.startswith("W&B: offline, in run/wandb/offline-run-")
    assert upload.startswith("Upload it: (cd run && wandb sync wandb/offline-run-")
    assert read_record(place / "run").parameters == {"rate": 0.02}


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_mode_in_the_environment_goes_before_a_key(mode, place, server):
    told = rlstages(place, "train", "small.py", "--out", "run", WANDB_MODE=mode, **key(server))
    assert server.runs == {}
    assert bool(list((place / "run").glob("wandb/offline-run-*"))) == (mode == "offline")
    assert ("W&B" in told) == (mode == "offline")


@pytest.mark.slow
def test_two_runs_under_one_run_id_of_a_job_do_not_mix(place, server):
    for seed in (0, 1):
        rlstages(place, "train", "small.py", "--seed", seed, "--out", f"run{seed}", WANDB_RUN_ID="job42", **key(server))
    assert set(server.runs) == {read_record(place / f"run{seed}").run_id for seed in (0, 1)}
    assert "job42" not in server.runs and len(server.runs) == 2


def as_agent(place, **given):
    """Return what an agent sets, and the arguments that it puts in the place of `${args}`."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    told = create_sweep_command_args({"args": {name: {"value": value} for name, value in given.items()}})
    folder = place / "wandb" / "sweep-s1"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}:\n  value: {json.dumps(value)}\n" for name, value in given.items()]
    (folder / "config-agent1.yaml").write_text("wandb_version: 1\n\n" + "".join(lines))
    file = os.path.join("wandb", "sweep-s1", "config-agent1.yaml")
    return told, {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "agent1", "WANDB_SWEEP_PARAM_PATH": file}


@pytest.mark.parametrize("form", ["args", pytest.param("args_no_hyphens", marks=pytest.mark.slow)])
def test_agent_of_a_sweep_gives_parameters_and_the_run_its_id(form, place, server):
    told, variables = as_agent(place, rate=0.02, steps=5_000)
    rlstages(place, "train", "small.py", *told[form], "--out", "run", **variables, **key(server))
    record = read_record(place / "run")
    assert (record.run_id, record.parameters) == ("agent1", {"rate": 0.02, "steps": 5_000})
    assert set(server.runs) == {"agent1"}
    assert server.runs["agent1"]["asked"]["sweep"] == "s1"
    assert server.runs["agent1"]["config"]["rate"] == {"value": 0.02}


@pytest.mark.slow
def test_agent_may_choose_the_seed(place):
    told, _ = as_agent(place, seed=5)
    rlstages(place, "train", "small.py", *told["args"], "--out", "run", "--track", "none")
    assert read_record(place / "run").seed == 5


@pytest.mark.slow
def test_only_one_run_is_the_agents(place, server):
    """A sweep of ours that an agent starts has many runs, and an agent's function may train twice."""
    _, variables = as_agent(place, rate=0.02)
    rlstages(place, "sweep", "small.py", "--seeds", "0:2", "--out", "swept", "--jobs", 1, **variables, **key(server))
    assert len(server.runs) == 2 and "agent1" not in server.runs
    assert {run["asked"]["jobType"] for run in server.runs.values()} == {"sweep"}
    assert not any("sweep" in run["asked"] for run in server.runs.values())
    twice = "import rlstages\nfor out in 'ab': rlstages.train('small.py', out=out)"
    python(place, twice, **variables)
    assert [read_record(place / out).run_id == "agent1" for out in "ab"] == [True, False]


@pytest.mark.slow
def test_runs_that_start_from_others_use_their_policies(place, server):
    rlstages(place, "train", "small.py", "--out", "runs/first", **key(server))
    digest = payloads(place / "runs" / "first", StageFinished)[-1].digest
    final = server.aliases["small-policy", "final"]
    assert server.aliases["small-policy", f"sha256-{digest[:16]}"] == final
    rlstages(place, "train", "small.py", "--out", "runs/second", "--from", "runs/first", **key(server))
    rlstages(place, "train", "small.py", "--out", "runs/third", "-p", "expert=runs/first", **key(server))
    for name in ("second", "third"):
        assert (read_record(place / "runs" / name).run_id, final) in server.used
    assert read_record(place / "runs" / "second").origin == {"name": "small", "digest": digest}


@pytest.mark.slow
def test_run_whose_origin_w_and_b_lacks_goes_on_without_an_edge(place, server):
    rlstages(place, "train", "small.py", "--out", "runs/first", "--track", "none")
    told = rlstages(place, "train", "small.py", "--out", "runs/second", "--from", "runs/first", **key(server))
    assert "warning" not in told
    assert server.runs[read_record(place / "runs" / "second").run_id]["exit"] == 0


@pytest.mark.slow
def test_missed_stage_is_an_alert_once(place, server):
    options = ["--out", "run", "-p", "least=0.9", "-p", "steps=900", "-p", "rate=1e-9"]
    rlstages(place, "train", "small.py", *options, code=3, **key(server))
    assert [title for title, _ in server.alerts] == ["missed: tune"]
    rlstages(place, "track", "run", **key(server))
    assert len(server.alerts) == 1


@pytest.mark.slow
def test_printed_track_command_works_for_a_run_in_a_folder(place, server):
    told = rlstages(place, "train", "small.py", "--out", "runs/one", "--track", "online")
    (command,) = re.findall(r"warning: .*'rlstages (track \S+)' makes up for it later", told)
    assert command == "track runs/one"
    rlstages(place, *command.split(), **key(server))
    assert len(server.runs) == 1


@pytest.mark.slow
def test_code_and_system_are_sent_when_that_is_asked_for(place, server):
    rlstages(place, "train", "small.py", "--out", "a", **key(server))
    assert not [one for one in server.artifacts if one["name"] == "small-code"]
    assert not any("small.py" in address for address in server.files)
    rlstages(place, "train", "small.py", "--out", "b", "--track-code", "--track-system", **key(server))
    assert [one["name"] for one in server.artifacts].count("small-code") == 1
    assert PLAN.encode() in server.files.values()
    assert str(place) not in json.dumps([server.runs, server.artifacts], default=str)
