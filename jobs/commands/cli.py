"""The command ``nnjobs`` and its subcommands, each imported only when it is called."""

from __future__ import annotations

import difflib
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

import nnlib
from nnlib.core.named_object import load_named

COMMANDS = {
    "train": ("jobs.commands.train:train", "Train the experiment that a configuration file describes."),
    "evaluate": ("jobs.commands.evaluate:evaluate", "Compare numbers of workers over all splits, in one command."),
    "predict": ("jobs.commands.predict:predict", "Apply a trained model to a dataset or to a file."),
    "report": ("jobs.commands.report:report", "Write a page about a run, or comparing several, with figures."),
    "export": ("jobs.commands.export:export", "Write a trained model as ONNX, npz or safetensors, with a model card."),
    "scale": ("jobs.commands.scale:scale", "Measure the training on 1, 2, 4 ... workers."),
    "split-study": (
        "jobs.commands.split_study:split_study",
        "Cut a net into sub-nets, train them apart, put them together again.",
    ),
    "simulate": ("jobs.commands.simulate:simulate", "Predict the time on any number of workers."),
    "status": (
        "jobs.commands.status:status",
        "Show how a run is: round, workers, what it waits for.",
    ),
    "logs": ("jobs.commands.logs:logs", "Print the log of a run, or of one of its workers, wherever it lies."),
    "cancel": ("jobs.commands.cancel:cancel", "End a run, wherever its driver works."),
    "verify": ("jobs.commands.verify:verify", "Check a run against its ledger and recompute its rounds."),
    "data": ("jobs.commands.data:data", "Import, make, show and check datasets."),
    "cluster": ("jobs.commands.cluster:cluster", "Run a single-node Hadoop here, to try jobs on."),
    "doctor": (
        "jobs.commands.doctor:doctor",
        "Check this machine: what works, what is missing and what it would enable.",
    ),
    "devices": ("jobs.commands.devices:devices", "Show what can compute torch modules here: the processor, GPUs."),
    "pack": ("jobs.commands.pack:pack", "Pack the environment that tasks on a cluster run in."),
    "completion": ("jobs.commands.cli:completion", "Print the completion script of a shell."),
}
"""Name -> (``module:function`` of the command, its line in the help).

A new command is one file and one line here. ``nnjobs --help`` and completion read the lines of the help here and import
no command, so they answer in a tenth of the time.
"""


class LazyGroup(click.Group):
    """A group of the commands in `COMMANDS` that imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = load_named(COMMANDS[name][0])
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Find the command that the arguments name; of an unknown one say which name is near."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
            ctx.fail(f"There is no command {args[0]!r}; {meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their lines of `COMMANDS`, which imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """List the commands and options that begin so."""
        commands = [
            CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(nnlib.__version__, prog_name="nnjobs")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def cli(debug: bool) -> None:
    """Train neural networks as MapReduce jobs: mappers train, reducers average the weights.

    Exit codes: 0 done, 2 wrong usage or configuration, 3 bad data, 4 a job, the cluster, the storage or writing the
    output failed, 5 training diverged, 130 interrupted (Ctrl-C, SIGTERM, or the terminal was closed).
    """


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(nnjobs completion bash)" in ~/.bashrc; zsh: the same with zsh in ~/.zshrc; fish: nnjobs completion
    fish > ~/.config/fish/completions/nnjobs.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    click.echo(kind(cli, {}, "nnjobs", "_NNJOBS_COMPLETE").source())
