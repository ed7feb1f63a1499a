"""The base of all our mrjob jobs: their lines, their few arguments, and how a task ends.

Runners start a job's file as a script, so it must import nnjobs as an installed package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mrjob.job import MRJob
from mrjob.protocol import RawValueProtocol
from mrjob.step import MRStep

from jobs.runners.lines import LineProtocol
from jobs.runners.output_trailer import SealedStream

if TYPE_CHECKING:
    from jobs.runners.streaming_reporter import Reporter


class TaskJob(MRJob):  # type: ignore[misc]
    """A job whose map tasks each have lines of a plan; what they work on they open themselves."""

    INPUT_PROTOCOL = RawValueProtocol
    INTERNAL_PROTOCOL = LineProtocol
    OUTPUT_PROTOCOL = LineProtocol
    reports_node = False
    """Whether the tasks can report what their node is like (``--check-node``)."""
    _reporter: Reporter | None = None

    def configure_args(self) -> None:
        """Define only the arguments of tasks. mrjob's hundred options are for starting jobs, which the driver does
        through the runners; building them costs 7 ms a task."""
        parser = self.arg_parser
        parser.add_argument("args", nargs="*")
        parser.add_argument("--step-num", type=int, default=0)
        for step in ("mapper", "combiner", "reducer", "spark"):
            parser.add_argument(f"--{step}", dest=f"run_{step}", action="store_true")
        parser.set_defaults(help=False, runner=None)
        self.add_task_args()

    def map_steps(self, **tasks: Callable[..., object]) -> list[MRStep]:
        """Return the steps of a job of map tasks alone, in mrjob's form; ``tasks`` are its mapper, mapper_final ..."""
        return [MRStep(**tasks)]

    def add_task_args(self) -> None:
        """Define the arguments of the job's tasks; a subclass adds its own."""
        self.add_file_arg("--spec")
        self.add_passthru_arg("--phase", default="train")
        self.add_passthru_arg("--seal", action="store_true")
        self.add_passthru_arg("--report", action="store_true")

    def execute(self) -> None:
        """Run the task. ``--seal`` ends its output with a line that shows that it is whole; ``--report`` reports
        progress to Hadoop."""
        if self.options.report:
            from jobs.runners.streaming_reporter import Reporter  # late: only tasks on a cluster report

            with Reporter(self) as self._reporter:
                super().execute()
            return
        if not self.options.seal:
            super().execute()
            return
        output = SealedStream(self.stdout)
        self.sandbox(self.stdin, output, self.stderr)
        super().execute()
        output.seal()
