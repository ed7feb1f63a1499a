"""A splitting study ("structural splitting"): a whole net trains on part of the rows and is cut into sub-nets, in many
ways; the sub-nets train on the rest and are put together again.

Two runs, both of which can be resumed, verified, applied and exported: ``whole`` trains the whole net of every split;
``split`` goes on from it, with a trial for every partition and one for the whole net trained as long, all in the same
job.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence

from jobs.driver import driver
from jobs.experiments.scaling import changed, round_seconds
from jobs.experiments.split_nets import WholeNet, whole_nets
from nnlib.config.schema import Config, Splitting
from nnlib.config.training import Subnets
from nnlib.core.errors import ConfigError, MismatchError, StorageError
from nnlib.core.events import Event, Listener, RunDone, ignore
from nnlib.core.partition import Partition
from nnlib.core.progress import progressing
from nnlib.data.dataset import Dataset
from nnlib.run.directory import RunDirectory
from nnlib.run.final_result import FinalTrial
from nnlib.run.ledger import canonical
from nnlib.splitting.scores import (
    WHOLE,
    PartitionScore,
    chance_spread,
    correlations,
    mean_of,
    method_results,
    to_table,
    whole_scores,
)
from nnlib.splitting.study import SplitStudy
from nnlib.storage import Storage, storage
from nnlib.storage.output_folder import NOTHING, FolderContent, claimed_folder
from nnlib.storage.outputs import refuse_overlap

RESULTS = "splitting.json"
TABLE = "splitting.parquet"
FIGURES = "figures"
PARTITION = "train.subnets.partition"


def split_study(
    config: Config, output: str, *, listen: Listener = ignore, inputs: Sequence[str] = ()
) -> tuple[SplitStudy, list[PartitionScore]]:
    """Train the runs of a study that are not finished; write ``splitting.json``, ``splitting.parquet`` and figures.

    Args:
        config: the experiment; its section ``train`` is that of the sub-nets, ``splitting`` says what is compared.
        output: the folder of the study.
        listen: gets the events of both runs.
        inputs: addresses that are read besides the dataset. A new study's folder must not touch any of them.

    Raises:
        ConfigError: the configuration sets what the study sets itself, or its nets cannot be cut in this way.
    """
    _check(config)
    results = storage(output)
    content = FolderContent.of(RESULTS, TABLE, FIGURES)
    if _own_content(results, content) == NOTHING:
        refuse_overlap(output, (config.data.path, *inputs))
    with claimed_folder(results, content, lambda: _own_content(results, content)):
        return _Study(config, results, listen).run()


def _check(config: Config) -> None:
    subnets = config.train.subnets or Subnets()
    is_set = {
        "sweep": bool(config.sweep),
        "split.train_range": config.split.train_range is not None,
        PARTITION: subnets.partition is not None,
    }
    for key in [key for key, value in is_set.items() if value]:
        raise ConfigError("a splitting study sets this key itself: leave it out", key=key)
    groups = (config.splitting or Splitting()).groups
    at_once = Partition.of([list(range(groups))] * 2).subnets_at_once(subnets.alternate)
    if config.workers < at_once:
        raise ConfigError(
            f"workers is {config.workers}, but up to {at_once} sub-nets train at once (splitting.groups: {groups}, "
            f"train.subnets.alternate: {subnets.alternate})",
            key="workers",
        )


def _own_content(results: Storage, content: FolderContent) -> FolderContent:
    """What may be replaced in the folder: all, where it is a study's."""
    with contextlib.suppress(StorageError, ValueError, RecursionError):
        if results.exists(RESULTS):
            data = json.loads(results.read(RESULTS))
            return content if isinstance(data, dict) and {"format_version", "correlations"} <= data.keys() else NOTHING
    return NOTHING


class _Study:
    def __init__(self, config: Config, results: Storage, listen: Listener) -> None:
        self.config, self.results = config, results
        self.splitting, self.subnets = config.splitting or Splitting(), config.train.subnets or Subnets()
        self.metric = "accuracy" if Dataset.open(config.data.path).task == "classification" else "r2"
        self._listen = listen

    def run(self) -> tuple[SplitStudy, list[PartitionScore]]:
        whole = self._trained(self._whole_config(), None)
        nets = whole_nets(whole, self.splitting, self.subnets, seed=self.config.seed, metric=self.metric)
        partitions = list(dict.fromkeys(partition for net in nets for partition in net.methods))
        split = self._trained(self._split_config(partitions), whole.address)
        scores = self._scores(split, nets, partitions)
        study = self._summary(scores, nets, {"whole": whole, "split": split})
        with self.results.writing(TABLE) as stream:
            import pyarrow.parquet as pq  # late: a command's --help needs none of it

            pq.write_table(to_table(scores), stream, compression="zstd")
        with contextlib.suppress(ImportError):  # matplotlib is an extra; the table is the result
            from nnlib.splitting import figures

            for name, figure in figures.study_figures(scores, study.chance, self.metric).items():
                self.results.write(f"{FIGURES}/{name}", figure)
        self.results.write(RESULTS, canonical(study.to_json()))
        return study, scores

    def _whole_config(self) -> Config:
        """The run that trains the whole nets. With shared streams all workers would do the same, so it has one."""
        config, splitting = self.config, self.splitting
        epochs = config.train.epochs if splitting.whole_epochs is None else splitting.whole_epochs
        return changed(
            config,
            name=f"{config.name}-whole"[:64],
            run_dir=f"{self.results.root}/whole",
            workers=1 if config.sampling.streams == "shared" else config.workers,
            split__train_range=[0.0, splitting.whole_rows],
            train__epochs=epochs,
            train__subnets=None,
            splitting=None,
        )

    def _split_config(self, partitions: Sequence[Partition]) -> Config:
        """The run that trains sub-nets: a trial for each net and partition, and for each whole net (null)."""
        config = self.config
        return changed(
            config,
            name=f"{config.name}-split"[:64],
            run_dir=f"{self.results.root}/split",
            split__train_range=[self.splitting.whole_rows, 1.0],
            train__subnets=self.subnets.model_dump(mode="json"),
            sweep={PARTITION: [None, *map(str, partitions)]},
            splitting=None,
        )

    def _trained(self, config: Config, start: str | None) -> RunDirectory:
        def listen(event: Event) -> None:
            if not isinstance(event, RunDone):  # the study has a summary of its own
                self._listen(event)

        result = driver.train(config, resume=True, start_from=start, listen=listen)
        return RunDirectory.open(result.run_dir)

    def _scores(
        self, split: RunDirectory, nets: Sequence[WholeNet], partitions: Sequence[Partition]
    ) -> list[PartitionScore]:
        final = split.final()
        if final is None:
            raise MismatchError("this run has lost its final scores", hint="run the same command", run=split.address)
        of_net = {(net.trial.split, net.trial.fold): net for net in nets}
        numbers = {str(partition): number for number, partition in enumerate(partitions, 1)}
        properties: dict[tuple[int, int], dict[Partition, dict[str, float]]] = {}
        with progressing("comparing the partitions of", len(nets), "nets") as advance:
            for key, net in of_net.items():
                properties[key] = net.properties(partitions, self.subnets)
                advance(len(properties))
        return [self._score(each, of_net[each.split, each.fold], properties, numbers) for each in final.trials]

    def _score(
        self,
        kept: FinalTrial,
        net: WholeNet,
        properties: Mapping[tuple[int, int], Mapping[Partition, Mapping[str, float]]],
        numbers: Mapping[str, int],
    ) -> PartitionScore:
        text = kept.overrides[PARTITION]
        partition = None if text is None else Partition.parse(text)
        return PartitionScore(
            split=kept.split,
            fold=kept.fold,
            partition=text,
            methods=(WHOLE,) if partition is None else tuple(net.methods.get(partition, ())),
            number=0 if text is None else numbers[text],
            trial=kept.trial,
            score=kept.test.value(self.metric),
            loss=kept.test.loss,
            validation_loss=kept.validation.loss,
            before=net.score,
            status=kept.status,
            properties={} if partition is None else properties[kept.split, kept.fold][partition],
        )

    def _summary(
        self, scores: Sequence[PartitionScore], nets: Sequence[WholeNet], runs: Mapping[str, RunDirectory]
    ) -> SplitStudy:
        specs = [run.spec() for run in runs.values()]
        tested = sum(specs[0].trials[0].test_rows)
        ratio = tested / sum(spec.train_rows(spec.trials[0]) for spec in specs)
        whole = mean_of([each.score for each in whole_scores(scores).values()])
        partitions = {each.partition for each in scores if each.partition is not None}
        finals = {name: run.final() for name, run in runs.items()}
        return SplitStudy(
            name=self.config.name,
            metric=self.metric,
            nets=len(nets),
            partitions=len(partitions),
            before=mean_of([net.score for net in nets]),
            whole=whole,
            chance=chance_spread(whole, tested) if whole is not None and self.metric == "accuracy" else None,
            work=max(nets[0].work(Partition.parse(each)) for each in partitions),
            methods=tuple(method_results(scores, self.splitting.methods, ratio)),
            correlations=tuple(correlations(scores, ratio)),
            seconds={name: round_seconds(runs[name], final.rounds) for name, final in finals.items() if final},
            runs={name: run.address for name, run in runs.items()},
            diverged=sum(each.status == "diverged" for each in scores),
            output=self.results.root,
        )
