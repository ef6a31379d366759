"""The page on the estimator runs as it is written."""

import re

from places import ROOT


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "estimator.md").read_text(), flags=re.S):
        exec(block, names)
    assert (tmp_path / "runs" / "films" / "task.toml").is_file()
    assert names["clf"].classes_.tolist() == ["bad", "good"]
    assert [bool(axes.has_data()) for axes in names["axes"]] == [True, True]
    names["plt"].close("all")
