"""Own data that keeps all its rows."""

import pytest

import tpv

ROWS = {"text": [f"text {i}" for i in range(10)], "label": ["good", "bad"] * 5}


def test_nothing_is_held_out_where_nobody_asks_for_it(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "\n".join(f"{t},{w}" for t, w in zip(*ROWS.values(), strict=True)) + "\n")
    whole = tpv.load_task(path, hold_out=False)
    assert [len(whole.splits[split]) for split in ("train", "validation", "test")] == [10, 0, 0]
    assert [row.source for row in whole.examples("train")] == [f"text: text {i}" for i in range(10)]
    assert len(tpv.load_task(path).examples("train")) < 10
    tested = tpv.load_task(path, test=path, hold_out=False)
    assert [len(tested.splits[split]) for split in ("train", "validation", "test")] == [10, 0, 10]
    with pytest.raises(tpv.TpvError, match="hold_out"):
        tpv.load_task("mini/sst2", hold_out=False)
