"""Tokenizer files of Hugging Face's `tokenizers`: read, trained, and packed into one line for a manifest.

The package is imported when it is used, no sooner.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from nnlib.core.errors import DataError, MismatchError, UsageError
from nnlib.storage import file_at, storage

END_OF_TEXT = "<|endoftext|>"
"""The token behind a document in the vocabularies of GPT-2, and in those that are trained here."""

ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "[EOS]", "[SEP]")
PADS = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>")

LEAST_VOCABULARY = 257
"""A vocabulary of bytes, and the end of a text."""

PAIRED_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""The two files of a byte-pair vocabulary, as they are called: by transformers, and by OpenAI."""


def package() -> Any:
    """Return the package `tokenizers`. Raises `UsageError` where it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise UsageError(f"text needs the package tokenizers ({error})", hint="pip install 'nnjobs[text]'") from None
    return tokenizers


def read_tokenizer(address: str) -> str:
    """Return the text of a tokenizer file at any address, or that of a folder's byte-pair vocabulary.

    A folder has a ``tokenizer.json``, or two files such as GPT-2's ``vocab.json`` and ``merges.txt``. Truncation and
    padding that a file asks for are left out: rows have their length from the dataset. Raises `DataError` for what is
    no tokenizer.
    """
    tokenizers = package()
    folder = storage(address)
    if folder.exists("tokenizer.json"):
        return _plain(_parsed(folder.read("tokenizer.json"), f"{address}/tokenizer.json"))
    for vocabulary, merges in PAIRED_FILES:
        if folder.exists(vocabulary) and folder.exists(merges):
            return _plain(_byte_pairs(folder.read(vocabulary), folder.read(merges), address))
    parent, name = file_at(address)
    if not parent.exists(name):
        raise DataError(
            "there is no such tokenizer file",
            hint="name a tokenizer.json, a folder with one or with vocab.json and merges.txt, or --train-tokenizer V",
            file=address,
        )
    del tokenizers
    return _plain(_parsed(parent.read(name), address))


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> str:
    """Train a byte-pair vocabulary of ``vocabulary`` ids, as GPT-2's is, and return the text of its file.

    Raises `UsageError` for fewer ids than there are bytes.
    """
    if vocabulary < LEAST_VOCABULARY:
        raise UsageError(f"--train-tokenizer {vocabulary}: bytes alone take {LEAST_VOCABULARY}")
    tokenizers = package()
    tokenizer = _byte_level(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def pack(text: str) -> str:
    """Return the text of a tokenizer file in fewer characters, those of base64; `unpack` is the inverse."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def unpack(packed: str) -> str:
    """Return the text that `pack` packed. Raises `MismatchError` for anything else."""
    try:
        return zlib.decompress(base64.b64decode(packed, validate=True)).decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        raise MismatchError(f"the stored tokenizer is damaged: {error}") from None


@lru_cache(maxsize=4)
def tokenizer_of(packed: str) -> Any:
    """Return the tokenizer that `pack` packed."""
    return _parsed(unpack(packed).encode(), None)


def vocabulary_of(tokenizer: Any) -> int:
    """Return one more than the largest id."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def find_end(tokenizer: Any, name: str | None) -> int | None:
    """Return the id that ends a document: of the token ``name``; None: of a usual one; "none", or no usual one: None.

    Raises `UsageError` for a token that the vocabulary has not.
    """
    if name == "none":
        return None
    found = _first(tokenizer, (name,) if name else ENDS)
    if found is None and name is not None:
        raise UsageError(f"--end {name}: the tokenizer has no such token", hint="--end none puts none behind documents")
    return found


def find_pad(tokenizer: Any, end: int | None) -> int:
    """Return the id that fills rows up: of a usual token, or else that of the end, or 0."""
    found = _first(tokenizer, PADS)
    return found if found is not None else end or 0


def _first(tokenizer: Any, names: tuple[str, ...]) -> int | None:
    ids = (tokenizer.token_to_id(name) for name in names)
    return next((id_ for id_ in ids if id_ is not None), None)


def _plain(tokenizer: Any) -> str:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return str(tokenizer.to_str())


def _parsed(data: bytes, file: str | None) -> Any:
    try:
        return package().Tokenizer.from_str(data.decode())
    except UsageError:
        raise
    except Exception as error:  # the package raises no narrower type
        raise DataError(
            f"is no tokenizer file of Hugging Face's tokenizers: {error}",
            hint="it is a JSON file such as tokenizer.json; tokenizer.save(FILE) and save_pretrained(FOLDER) write it",
            file=file,
        ) from None


def _byte_pairs(vocabulary: bytes, merges: bytes, folder: str) -> Any:
    """Return GPT-2's tokenizer with a vocabulary (JSON) and its merges (a pair a line)."""
    tokenizers = package()
    try:
        ids = {str(token): int(id_) for token, id_ in json.loads(vocabulary).items()}
        lines = [line for line in merges.decode().split("\n") if line and not line.startswith("#version")]
        pairs = [(first, second) for first, second in (line.split(" ") for line in lines)]
        tokenizer = _byte_level(tokenizers.models.BPE(vocab=ids, merges=pairs))
    except Exception as error:
        raise DataError(f"holds no byte-pair vocabulary: {error}", file=folder) from None
    if END_OF_TEXT in ids:
        tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def _byte_level(model: Any) -> Any:
    tokenizers = package()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return tokenizer
