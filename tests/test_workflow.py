"""The main job, as a user types it."""

import json
from pathlib import Path

from pipelines.__main__ import main

DEMO = Path(__file__).parents[1] / "pipelines" / "recipes" / "demo.yaml"


def test_one_command_goes_from_scans_to_a_verified_saved_model(
    command, tmp_path, monkeypatch, capsys
):
    done = command("pipelines", "--config", DEMO, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["evaluation"]["top1"] >= 0.97
    assert report["evaluation"]["n"] == report["data"]["images"]["validation"] == 356
    assert report["training"]["top1"] == report["evaluation"]["top1"]
    assert report["export"]["largest_difference"] <= 1e-4
    assert (tmp_path / report["export"]["saved_model"] / "saved_model.pb").is_file()
    monkeypatch.chdir(tmp_path)
    assert main(["--config", str(DEMO)]) == 0
    assert "next        python -m pipelines.serve saved_models" in capsys.readouterr().out
