"""Blocks of documents: every token once and in order, documents whole where they fit, groups that stay apart."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlib.data.importing.text.blocks import Block, BlockPacker, Document

PAD = 99


def blocks_of(documents: list[Document], length: int, *, pack: bool = True) -> list[Block]:
    packer = BlockPacker(length, PAD, pack=pack)
    blocks = [block for document in documents for block in packer.add(document)]
    return [*blocks, *packer.flush()]


def document(key: int, size: int, kept: tuple[object, ...] = ()) -> Document:
    return Document(np.arange(size) + 100 * key, np.ones(size, np.bool_), key, kept)


def test_short_documents_share_a_block_and_long_ones_begin_one() -> None:
    first, second, third = blocks_of([document(1, 2), document(2, 2), document(3, 6)], 4)
    assert first.tokens.tolist() == [100, 101, 200, 201] and first.counts.tolist() == [False, True, True, True]
    assert second.tokens.tolist() == [300, 301, 302, 303]
    assert third.tokens.tolist() == [304, 305, PAD, PAD] and third.counts.tolist() == [False, True, False, False]
    assert [first.group, second.group, third.group] == [1, 3, 3]


def test_without_packing_every_document_begins_a_block() -> None:
    blocks = blocks_of([document(1, 2), document(2, 2)], 4, pack=False)
    assert [block.tokens.tolist() for block in blocks] == [[100, 101, PAD, PAD], [200, 201, PAD, PAD]]


def test_documents_whose_kept_columns_differ_share_no_block() -> None:
    blocks = blocks_of([document(1, 2, ("train",)), document(2, 2, ("test",)), document(3, 2, ("test",))], 4)
    assert [block.kept for block in blocks] == [("train",), ("test",)]


def test_a_block_in_which_nothing_counts_is_left_out() -> None:
    prompt = Document(np.arange(6), np.array([False] * 5 + [True]), 1)
    (only,) = blocks_of([prompt], 4)
    assert only.tokens.tolist() == [4, 5, PAD, PAD]
    assert blocks_of([document(1, 1)], 4) == []


@settings(deadline=None)  # machines are shared
@given(st.lists(st.integers(1, 30), max_size=20), st.integers(2, 9), st.booleans())
def test_every_token_is_there_once_in_order_and_groups_share_no_document(
    sizes: list[int], length: int, pack: bool
) -> None:
    documents = [document(key, size) for key, size in enumerate(sizes, 1)]
    blocks = blocks_of(documents, length, pack=pack)
    tokens = np.concatenate([block.tokens for block in blocks]) if blocks else np.empty(0)
    real = tokens[tokens != PAD]
    expected = np.concatenate([np.empty(0), *(each.tokens for each in documents)])
    alone = {each.tokens[-1] for each in documents if len(each.tokens) % length == 1}  # in a block: nothing predicts it
    assert set(expected) - set(real) <= alone
    assert np.array_equal(real, expected[np.isin(expected, real)])
    groups = defaultdict(set)
    for block in blocks:
        for token in block.tokens[block.tokens != PAD]:
            groups[token // 100].add(block.group)
    assert all(len(each) == 1 for each in groups.values())
