"""What a user hears of nodes that fall silent while a job runs on them."""

from __future__ import annotations

from collections.abc import Sequence

from played_hadoop import APPLICATION, Yarn

from jobs.runners.hadoop.cluster_settings import ClusterSettings
from jobs.runners.hadoop.node_watch import NodeWatch
from jobs.runners.hadoop.submission import State, Submission
from nnlib.core.events import Note

ATTEMPTS = f"/ws/v1/cluster/apps/{APPLICATION}/appattempts"


def notes_of_looks(yarn: tuple[str, type[Yarn]], answers: Sequence[object]) -> list[list[str]]:
    """The notes after each look at a node that gives these answers (None: it does not answer)."""
    host, handler = yarn
    handler.answers = {
        ATTEMPTS: {"appAttempts": {"appAttempt": [{"nodeHttpAddress": host, "appAttemptId": "one"}]}},
        "/ws/v1/node/info": [*answers],
    }
    notes: list[Note] = []
    watch = NodeWatch(lambda: ClusterSettings(node_expiry_seconds=20.0), notes.append)
    submission = Submission(State.RUNNING, APPLICATION, f"http://{host}")
    seen = []
    for _ in answers:
        notes.clear()
        watch.look(submission)
        seen.append([note.text for note in notes])
    return seen


def test_a_node_that_falls_silent_is_named_once_with_how_long_yarn_waits(yarn: tuple[str, type[Yarn]]) -> None:
    fell, back = "does not answer: if that lasts, YARN takes it for lost 20 s after", "answers again"
    notes = notes_of_looks(yarn, [{}, None, None, None, {}, {}])
    assert [[text.split(f"node {yarn[0]} ")[1][: len(fell)] for text in each] for each in notes] == [
        [],
        [],  # once is not enough
        [fell],
        [],
        [back],
        [],
    ]


def test_a_node_that_misses_one_look_is_not_worth_a_word(yarn: tuple[str, type[Yarn]]) -> None:
    assert notes_of_looks(yarn, [{}, None, {}, None, {}]) == 5 * [[]]


def test_nodes_that_cannot_be_reached_from_here_at_all_are_not_silent(yarn: tuple[str, type[Yarn]]) -> None:
    assert notes_of_looks(yarn, 4 * [None]) == 4 * [[]]


def test_before_the_cluster_has_accepted_a_job_nothing_is_asked(yarn: tuple[str, type[Yarn]]) -> None:
    _, handler = yarn
    NodeWatch(ClusterSettings, lambda note: None).look(Submission())
    NodeWatch(ClusterSettings, lambda note: None).look(Submission(application=APPLICATION))
    assert handler.heard == []
