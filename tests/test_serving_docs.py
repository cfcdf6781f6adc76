"""The commands of docs/serving.md, run as they stand."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import colour_model
import pytest
from served import one_colour, serving

PAGE = Path(__file__).parents[1] / "docs" / "serving.md"
# Each with the lines that lead to it: those indented, up to the one that has `curl`.
COMMANDS = re.findall(r"(?m)^(?: {4}echo .*\n(?: {8}.*\n)*| {4}curl .*\n)", PAGE.read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    colour_model.write(folder / "tiny" / "1")
    (folder / "tiny" / "version_labels.yaml").write_text("stable: 1\n")
    with serving(folder) as url:
        yield url


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_answered(server, tmp_path, command):
    (tmp_path / "photograph.jpg").write_bytes(one_colour((0, 255, 0), form="JPEG"))
    script = command.replace("http://127.0.0.1:8501", server).replace("curl ", "curl -sS --fail ")
    done = subprocess.run(script, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "photograph.jpg" in command:
        answer = json.loads(done.stdout)
        assert "green" in json.dumps(answer) or "features" in command


def test_the_page_has_a_command_for_every_protocol():
    paths = {re.search(r"8501(/\w+)", command)[1] for command in COMMANDS}
    assert paths == {"/classify", "/v1", "/v2", "/healthz", "/metrics"}
    assert len(COMMANDS) == 12
