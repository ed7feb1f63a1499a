from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from nnlib.data.importing.spill_buffer import SpillBuffer


def batch(*values: int) -> pa.RecordBatch:
    return pa.record_batch({"v": pa.array(values, pa.int64())})


@pytest.mark.parametrize("memory", [0, 40, 1 << 20])
def test_partitions_are_first_in_first_out_in_memory_and_in_files(tmp_path: Path, memory: int) -> None:
    with SpillBuffer(tmp_path, memory) as buffer:
        for value in range(30):
            buffer.put(value % 3, batch(value, -value))
        for partition in (2, 0, 1):
            values = [v for part in buffer.take(partition) for v in part.column(0).to_pylist()[::2]]
            assert values == list(range(partition, 30, 3))
        assert list(buffer.take(7)) == []
    assert list(tmp_path.iterdir()) == []


def test_files_go_when_an_error_passes(tmp_path: Path) -> None:
    with pytest.raises(KeyError), SpillBuffer(tmp_path, 0) as buffer:
        buffer.put(0, batch(1))
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyError
    assert list(tmp_path.iterdir()) == []
