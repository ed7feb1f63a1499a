"""``nnjobs train``."""

from __future__ import annotations

import contextlib
import gc
import shlex
import sys
from typing import NoReturn

import click

from jobs.commands.options import configuration_options, json_option, trust_option
from jobs.console.output import print_json
from jobs.console.training_display import Display, display, note_line, resume_line
from jobs.runners.hadoop.kerberos_login import use_keytab
from nnlib.config.code_trust import trust_code_of
from nnlib.config.load import load_config
from nnlib.config.render import from_resolved, to_yaml
from nnlib.config.schema import Config
from nnlib.core.errors import DivergedError, JobError, StorageError, UsageError
from nnlib.core.events import Note, RunDone
from nnlib.core.run_result import RunResult


@click.command()
@click.argument("config_path", metavar="[CONFIG]", required=False, type=click.Path(dir_okay=False))
@configuration_options
@click.option("--run-dir", metavar="URI", help="Where the run is kept. [default: runs/NAME-N, the first free N]")
@click.option("--resume", is_flag=True, help="Go on with the run in --run-dir; CONFIG may then be left out.")
@click.option("--from", "start_from", metavar="RUN[@N]", help="Start from the model of another run (of its round N).")
@click.option(
    "--chaos",
    metavar="FAULT=P,...",
    help="Kill, delay, cut ... local tasks on purpose, with these probabilities; the result must not change.",
)
@trust_option
@click.option(
    "--detach",
    is_flag=True,
    help="hadoop: let a job of the cluster drive the run, and return when that has begun (--run-dir hdfs://...).",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Show only the final line.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and train nothing.")
def train(
    config_path: str | None,
    overrides: tuple[str, ...],
    run_dir: str | None,
    resume: bool,
    start_from: str | None,
    chaos: str | None,
    detach: bool,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
) -> None:
    """Train the experiment that CONFIG, a YAML file, describes.

    Progress and messages go to standard error.
    """
    if resume and start_from:
        raise UsageError("--resume goes on with a run, --from begins a new one: choose one of them")
    if resume and run_dir is None:
        raise UsageError("--resume needs the run to go on with: --run-dir URI")
    config = _configuration(config_path, run_dir, overrides, resume=resume)
    if dry_run:
        print_json(config.model_dump(mode="json")) if as_json else click.echo(to_yaml(config), nl=False)
        return
    _refuse_configuration_in_run(config_path, config)
    if config_path is not None:
        trust_code_of(config)  # to train a configuration is to run the code that it names
    if detach:
        if chaos:
            raise UsageError("--chaos harms processes of this machine: it cannot be used with --detach")
        _detach(config, resume, start_from, as_json)
        return
    # Output of libraries or of the user's model must not mix with our JSON on standard output.
    with display(sys.stderr, quiet=quiet) as screen, contextlib.redirect_stdout(sys.stderr):
        result = _train(config, resume, start_from, chaos, screen)
        if not screen.finished:  # the run was finished before: show its result
            screen(RunDone(result))
    if as_json:
        print_json(result.to_json())
    if result.diverged:
        raise click.exceptions.Exit(DivergedError.exit_code)


def _configuration(config_path: str | None, run_dir: str | None, overrides: tuple[str, ...], *, resume: bool) -> Config:
    if config_path is not None:
        config = load_config(config_path, overrides)
        use_keytab(config.runtime)  # before the run's directory is looked at
    elif resume and run_dir is not None:
        config = _configuration_of_run(run_dir, overrides)
    else:
        raise UsageError("which experiment? name a configuration file", hint="as in nnjobs train configs/digits.yaml")
    return config if run_dir is None else config.model_copy(update={"run_dir": run_dir})


def _refuse_configuration_in_run(config_path: str | None, config: Config) -> None:
    """Refuse a new run whose directory holds the configuration file: it has a ``config.yaml`` too."""
    if config_path is None or config.run_dir is None:
        return
    from nnlib.run.directory import RunDirectory
    from nnlib.storage.outputs import refuse_overlap

    if not RunDirectory(config.run_dir).exists():
        refuse_overlap(config.run_dir, (config_path,), option="--run-dir")


def _configuration_of_run(run_dir: str, overrides: tuple[str, ...]) -> Config:
    from nnlib.run.directory import CONFIG, RunDirectory

    run = RunDirectory.open(run_dir)
    text = run.storage.read(CONFIG).decode(errors="replace")
    return from_resolved(text, f"{run.address}/{CONFIG}", overrides)


def _train(config: Config, resume: bool, start_from: str | None, chaos: str | None, screen: Display) -> RunResult:
    # Imported now: --help and a wrong configuration need not wait for mrjob and pyarrow.
    from jobs.driver import driver
    from jobs.runners.local.chaos import Chaos

    if not gc.get_freeze_count():
        gc.freeze()  # imported modules stay: searching them for garbage, above all at the end, takes 40 ms
    schedule = None if chaos is None else Chaos.parse(chaos)
    try:
        return driver.train(config, resume=resume, start_from=start_from, listen=screen, chaos=schedule)
    except (JobError, StorageError) as error:
        if screen.started is not None and error.hint is None:
            error.hint = f"repair that, then: {resume_line(screen.started.run_dir)}"
        raise
    except KeyboardInterrupt:
        _interrupted(screen)


def _detach(config: Config, resume: bool, start_from: str | None, as_json: bool) -> None:
    from jobs.driver.detached import detach  # late, as above

    def show(note: Note) -> None:
        click.echo(note_line(note), err=True)

    with contextlib.redirect_stdout(sys.stderr):
        begun = detach(config, resume=resume, start_from=start_from, notify=show)
    if as_json:
        print_json({"application": begun.application, **begun.state.to_json()})
    run = shlex.quote(begun.run_dir)
    click.echo(
        f"the driver is {begun.application}, on {begun.state.host}; this machine is not needed any more", err=True
    )
    for command, what in (("status", "how far it is"), ("logs", "its log"), ("cancel", "end it")):
        click.echo(f"  nnjobs {command} {run}   {what}", err=True)


def _interrupted(screen: Display) -> NoReturn:
    screen.__exit__()
    if screen.started is None:
        screen.line("interrupted before the first round; nothing was trained")
    else:
        screen.line(f"interrupted; the committed rounds are kept. To go on:\n  {resume_line(screen.started.run_dir)}")
    raise click.exceptions.Exit(130)
