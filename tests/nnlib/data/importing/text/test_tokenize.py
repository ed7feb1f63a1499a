"""``nnjobs data tokenize`` and ``data import --text`` against Hugging Face's tokenizers: the same ids, in every format
and with every runner, and one line for bad input."""

from __future__ import annotations

import bz2
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from nnlib.data.dataset import Dataset
from nnlib.data.dataset_check import verify
from nnlib.data.token_rows import split_rows

tokenizers = pytest.importorskip("tokenizers")

ROWS: list[dict[str, Any]] = [
    {"problem": f"Add {n} to größe {n * n}.", "solution": f"x = {n} +\n    {n * n}", "n": n} for n in range(40)
]
LENGTH = 24
TEMPLATE = r"{problem}\n{solution}"


def texts() -> list[str]:
    return [f"{row['problem']}\n{row['solution']}" for row in ROWS]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-pair vocabulary such as GPT-2's, with the end of a text."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts(), vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def write(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        path.write_bytes(bz2.compress(data) if path.suffix == ".bz2" else data)
    return path


def tokenized(output: Path, *arguments: str | Path, code: int = 0) -> tuple[np.ndarray[Any, Any], ...]:
    """The tokens, masks and documents of the dataset that the command makes, in the order of the input."""
    assert main(["data", "tokenize", *map(str, arguments), "-o", str(output)]) == code
    dataset = Dataset.open(str(output))
    assert verify(dataset) == [] and dataset.task == "language"
    table = pq.read_table([output / shard.name for shard in dataset.shards]).sort_by("row")
    tokens, mask = split_rows(np.array(table["x"].to_pylist()))
    assert np.array_equal(mask.sum(axis=1), table["y"].to_numpy())
    return tokens, mask, table["document"].to_numpy()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.jsonl.bz2"])
def test_blocks_hold_what_the_tokenizer_says(tmp_path: Path, vocabulary: Path, name: str) -> None:
    tokens, mask, documents = tokenized(
        tmp_path / "out", write(tmp_path / name), "--tokenizer", vocabulary, "--length", str(LENGTH), "--no-pack",
        "--template", TEMPLATE, "--loss", "solution", "--shards", "3",
    )  # fmt: skip
    tokenizer = tokenizers.Tokenizer.from_file(str(vocabulary))
    end = tokenizer.token_to_id("<|endoftext|>")
    block = 0
    for row, text in zip(ROWS, texts(), strict=True):
        encoded = tokenizer.encode(text)
        ids = [*encoded.ids, end]
        within = [*(stop > len(row["problem"]) + 1 for _, stop in encoded.offsets), True]
        group = documents[block]
        for start in range(0, len(ids), LENGTH):
            part, counts = ids[start : start + LENGTH], within[start : start + LENGTH]
            if not any(counts[1:]):
                continue
            assert tokens[block][: len(part)].tolist() == part
            assert mask[block][: len(part)].tolist() == [False, *counts[1:]] and documents[block] == group
            block += 1
    assert block == len(tokens)


def test_every_runner_writes_the_same_bytes(tmp_path: Path) -> None:
    for part in range(3):
        write(tmp_path / f"in{part}.jsonl", ROWS[part::3])
    more: list[str | Path] = [
        "--train-tokenizer",
        "280",
        "--length",
        "16",
        "--template",
        TEMPLATE,
        "--shards",
        "2",
        "--keep",
        "n",
    ]
    for runner in ([], ["-r", "inline"], ["-r", "local"]):
        tokenized(tmp_path / f"out{''.join(runner)}", tmp_path / "in*.jsonl", *more, *runner)
    for output in ("out-rinline", "out-rlocal"):
        for file in sorted((tmp_path / "out").iterdir()):
            assert (tmp_path / output / file.name).read_bytes() == file.read_bytes(), file.name


def test_packing_keeps_documents_whole_and_texts_that_are_equal_in_one_group(tmp_path: Path, vocabulary: Path) -> None:
    rows = [{"text": text} for text in [*texts(), *texts()]]
    more: list[str | Path] = ["--tokenizer", vocabulary, "--length"]
    _, _, alone = tokenized(tmp_path / "alone", write(tmp_path / "a.jsonl", rows), *more, "64", "--no-pack")
    assert len(alone) == len(rows) and len(set(alone)) == len(ROWS)
    tokens, mask, groups = tokenized(tmp_path / "packed", tmp_path / "a.jsonl", *more, "64")
    assert len(tokens) < len(rows) and len(groups) == len(tokens)
    end = tokenizers.Tokenizer.from_file(str(vocabulary)).token_to_id("<|endoftext|>")
    assert all(row[np.flatnonzero(counts)[-1]] == end for row, counts in zip(tokens, mask, strict=True))
    assert (tokens == end).sum() - (~mask[:, 1:] & (tokens[:, 1:] == end)).sum() == len(rows)


def test_a_file_of_plain_text_is_a_document(tmp_path: Path, vocabulary: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, text in zip(("b.py", "a.txt", "c.md"), texts(), strict=False):
        (tmp_path / "in" / name).write_text(text)
    tokens, _, _ = tokenized(tmp_path / "out", tmp_path / "in", "--tokenizer", vocabulary.parent, "--length", "128")
    known = tokenizers.Tokenizer.from_file(str(vocabulary))
    names = [known.decode(list(row[row != known.token_to_id("<|endoftext|>")])) for row in tokens]
    assert names == [texts()[1], texts()[0], texts()[2]]  # in the order of their names


def test_the_two_files_of_a_vocabulary_are_a_tokenizer(tmp_path: Path, vocabulary: Path) -> None:
    model = json.loads(vocabulary.read_text())["model"]
    (tmp_path / "encoder.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))
    write(tmp_path / "a.jsonl")
    more: list[str | Path] = [tmp_path / "a.jsonl", "--length", "32", "--template", TEMPLATE, "--tokenizer"]
    pair = tokenized(tmp_path / "pair", *more, tmp_path)
    whole = tokenized(tmp_path / "whole", *more, vocabulary)
    assert all(np.array_equal(one, other) for one, other in zip(pair, whole, strict=True))


def test_rows_of_text_for_classification(tmp_path: Path, vocabulary: Path) -> None:
    rows = [{"tweet": row["problem"], "mood": "good" if row["n"] % 3 else "bad"} for row in ROWS]
    source = write(tmp_path / "tweets.csv", rows)
    code = main(["data", "import", str(source), "-o", str(tmp_path / "out"), "--label", "mood", "--text", "tweet",
                 "--tokenizer", str(vocabulary), "--length", "12"])  # fmt: skip
    dataset = Dataset.open(str(tmp_path / "out"))
    assert code == 0 and dataset.classes == ("bad", "good") and dataset.x_dtype == "uint16" and not verify(dataset)
    table = pq.read_table(tmp_path / "out" / "part-00000.parquet").sort_by("row")
    tokens, mask = split_rows(np.array(table["x"].to_pylist()))
    known = tokenizers.Tokenizer.from_file(str(vocabulary))
    for row, ids, counts in zip(rows, tokens, mask, strict=True):
        assert ids[counts].tolist() == known.encode(row["tweet"]).ids[:12]


@pytest.mark.parametrize(
    ("name", "content", "more", "code", "words"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', [], 3, ["line 2", "not UTF-8"]),
        ("a.jsonl", b'{"text": "a"}\nno\n', [], 3, ["line 2", "not JSON"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": ""}\n', [], 3, ["row 2", "empty", "--empty skip"]),
        ("a.jsonl", b'{"text": "a"}\n{"other": "a"}\n', [], 3, ["row 2", "column text", "missing"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": ["b"]}\n', [], 3, ["row 2", "a list"]),
        ("a.txt", b"fine\nbad \xff\n", [], 3, ["line 2", "not UTF-8"]),
        ("a.jsonl", b'{"a": "a", "b": "b"}\n', [], 2, ["--template", "columns: a, b"]),
        ("a.jsonl", b'{"text": "a"}\n', ["--template", "{body}"], 2, ["'body'", "columns: text"]),
        ("a.jsonl", b'{"text": "a"}\n', ["--loss", "body"], 2, ["--loss body"]),
        ("a.jsonl", b'{"text": "a"}\n', ["--end", "<eos>"], 2, ["--end <eos>"]),
        ("a.csv", b"text,n\nb\xffd,1\n", ["--template", "{text}"], 3, ["a.csv", "UTF"]),
    ],
)  # fmt: skip
def test_bad_text_is_one_error_that_says_where(
    tmp_path: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, more: list[str],
    code: int, words: list[str],
) -> None:  # fmt: skip
    (tmp_path / name).write_bytes(content)
    call = ["data", "tokenize", str(tmp_path / name), "-o", str(tmp_path / "out"), "--length", "8"]
    assert main([*call, "--tokenizer", str(vocabulary), *more]) == code
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert not (tmp_path / "out").exists()


def test_what_is_no_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.jsonl")
    call = ["data", "tokenize", str(source), "-o", str(tmp_path / "out"), "--length", "8", "--template", TEMPLATE]
    assert main([*call, "--tokenizer", str(source)]) == 3
    assert "no tokenizer file" in capsys.readouterr().err
    assert main([*call, "--tokenizer", str(tmp_path / "none.json")]) == 3
    assert "no such tokenizer file" in capsys.readouterr().err
    assert main([*call, "--train-tokenizer", "100"]) == 2
    assert "257" in capsys.readouterr().err
    assert main(call) == 2
    assert "--train-tokenizer" in capsys.readouterr().err


def test_empty_documents_are_left_out_where_that_is_wanted(tmp_path: Path, vocabulary: Path) -> None:
    source = write(tmp_path / "a.csv", [{"text": "NA", "n": 1}, {"text": "", "n": 2}, {"text": "some", "n": 3}])
    more: list[str | Path] = [
        "--template",
        "{text}",
        "--tokenizer",
        vocabulary,
        "--length",
        "8",
        "--no-pack",
        "--empty",
        "skip",
    ]
    tokens, _, _ = tokenized(tmp_path / "out", source, *more)
    assert len(tokens) == 2  # NA is a text
