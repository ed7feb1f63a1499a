"""Watches the nodes on which an application runs, and says which of them have fallen silent and how long YARN waits.

A resource manager shows a node as running until it has missed its heartbeats for ten minutes (by default); the tasks of
a lost node stand still until then. The nodes' own web services show it at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

from jobs.runners.hadoop.cluster_settings import ClusterSettings
from jobs.runners.hadoop.submission import Submission
from jobs.runners.hadoop.yarn_rest import fetch, nodes_of
from nnlib.core.events import Note

LOOK_SECONDS = 5.0
"""Pause between two looks."""
ANSWER_SECONDS = 3.0
"""A node that has not answered after this time, twice in a row, counts as silent."""
MOST_NODES = 64
"""At most this many of an application's nodes are asked."""


class NodeWatch:
    """Watches the nodes of one application after the other.

    Only a node that has answered once can fall silent: from some machines no node's web services can be reached.
    """

    def __init__(
        self,
        cluster: Callable[[], ClusterSettings],
        notify: Callable[[Note], None],
    ) -> None:
        """``cluster`` returns the cluster's settings; ``notify`` takes notes for people."""
        self._cluster, self._notify = cluster, notify
        self._known: set[str] = set()
        """Nodes that have answered."""
        self._missed: dict[str, int] = {}
        """Node -> looks in a row without an answer."""

    @contextmanager
    def watching(self, submission: Submission) -> Iterator[None]:
        """Watch the nodes of an application, in a thread, while the block runs."""
        over = threading.Event()

        def look_until_over() -> None:
            while not over.wait(LOOK_SECONDS):
                self.look(submission)

        thread = threading.Thread(target=look_until_over, name="nodes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()  # not joined: it may wait for a node that does not answer

    def look(self, submission: Submission) -> None:
        """Ask each node once; say what has changed."""
        if submission.application is None or submission.web is None:
            return
        nodes = sorted(nodes_of(submission.application, submission.web))[:MOST_NODES]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(_answers, nodes))
        for node, has_answered in zip(nodes, answers, strict=True):
            missed = self._missed.get(node, 0)
            if has_answered:
                if missed > 1:
                    self._notify(Note(f"node {_name(node)} answers again", "warning"))
                self._known.add(node)
            self._missed[node] = 0 if has_answered or node not in self._known else missed + 1
            if self._missed[node] == 2:
                self._notify(Note(f"node {_name(node)} does not answer: {self._waiting()}", "warning"))

    def _waiting(self) -> str:
        seconds = self._cluster().node_expiry_seconds
        return (
            f"if that lasts, YARN takes it for lost {seconds:g} s after its last heartbeat "
            "(yarn.nm.liveness-monitor.expiry-interval-ms), and its tasks start again elsewhere"
        )


def _answers(node: str) -> bool:
    return fetch(f"{node}/ws/v1/node/info", timeout=ANSWER_SECONDS) is not None


def _name(node: str) -> str:
    """A node as people know it: without the protocol of its web services."""
    return urlsplit(node).netloc
