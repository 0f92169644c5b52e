"""A user's mistake is one sentence, at once: nothing is computed, made or traced back.

Every command with every kind of wrong place and value; what a config refuses by itself is tested
with that config. The table of `docs/bad-input.md` says the same in words.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline.backbones.checkpoint import SHIPPED, read_config
from pipeline.cli import app
from selector.training.files import save_selector
from tests.lite_models import make_model
from tests.stores import make_store
from tests.videos import write_video


@pytest.fixture(scope="module")
def there(tmp_path_factory, tiny_backbone):
    """What is there before a command is mistaken: each name of a command line below."""
    root = tmp_path_factory.mktemp("there")
    make_store(root / "STORE", 8)
    (root / "FILE").write_text("text")
    (root / "FOREIGN").mkdir()
    (root / "FOREIGN" / "letter.txt").write_text("text")
    data = root / "DATA"
    data.mkdir()
    ids = {name: i for i, name in read_config(SHIPPED / "synthetic")["id2label"].items()}
    (data / "labels.json").write_text(json.dumps(ids))
    (data / "train.json").write_text(json.dumps([{"id": "1", "template": next(iter(ids))}]))
    (data / "20bn-something-something-v2").mkdir()
    (data / "20bn-something-something-v2" / "1.webm").write_bytes(b"never decoded")
    write_video(root / "VIDEO.mp4", 6)
    save_selector(make_model(tiny_backbone).selector, root / "MODEL")
    return root


def contents(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


BUILD = "build-oracle --data-root DATA --dataset synthetic --store NEW"
EVALUATE = "evaluate --data-root DATA --dataset synthetic --split train --out NEW"
TRAIN = "train-selector --store STORE --out NEW"
STANDIN = "train-backbone --data-root DATA --out NEW"
MAKE = "datasets make synthetic --videos 4 --workers 0 --out NEW"

WRITERS = {
    "build-oracle": (BUILD, "NEW"),
    "evaluate": (EVALUATE, "NEW"),
    "train-selector": (TRAIN, "NEW"),
    "train-backbone": (STANDIN, "NEW"),
    "pretrain-backbone": ("pretrain-backbone --data-root DATA --out NEW", "NEW"),
    "train-confidence": ("train-confidence --data-root DATA --out NEW", "NEW"),
    "datasets make": (MAKE, "NEW"),
    "demo": ("demo --out NEW", "NEW"),
    "accelerate": ("accelerate --backbone synthetic --data-root DATA --out NEW", "NEW"),
    "adapt-backbone": ("adapt-backbone --data-root DATA --selector MODEL --out NEW", "NEW"),
    "import-checkpoint": ("import-checkpoint FILE --out NEW", "NEW"),
    "report": ("report --store STORE --out NEW/page.html", "NEW/page.html"),
    "figure": ("figure 1 --store STORE --out NEW/1.png", "NEW/1.png"),
    "show": ("show --store STORE --worst 1 --out NEW", "NEW"),
    "table": ("table 1 --eval EVALUATION --out NEW/1.csv", "NEW/1.csv"),
    "analyze": ("analyze --store STORE --out NEW", "NEW"),
    "export-lite": ("export-lite --model MODEL --out NEW", "NEW"),
    "export-lite --onnx": ("export-lite --model MODEL --onnx NEW/lite.onnx", "NEW/lite.onnx"),
    "predict": ("predict VIDEO.mp4 --model MODEL --save-mask NEW/kept.png", "NEW/kept.png"),
}


def run(there, line):
    words = [str(there / w) if re.split("[/.]", w)[0].isupper() else w for w in line.split()]
    before = contents(there)
    result = CliRunner().invoke(app, words)
    assert contents(there) == before, "something was made"
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def sentence(result):
    """The one line on stderr."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def test_no_command_that_writes_a_folder_is_forgotten():
    root = typer.main.get_command(app)
    found = {
        **root.commands,
        **{f"datasets {n}": c for n, c in root.commands["datasets"].commands.items()},
    }
    writing = {n for n, c in found.items() if any("--out" in p.opts for p in c.params)}
    assert writing <= set(WRITERS)


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("FILE/below", "FILE is not a folder"),  # a file where a folder is needed
        ("/proc/of/nobody", "No such file or directory"),  # a place that cannot be written to
    ],
)
def test_a_place_that_cannot_be_written_to_is_found_before_the_work(there, command, place, why):
    line, old = WRITERS[command]
    said = sentence(run(there, line.replace(old, old.replace("NEW", place))))
    assert said.startswith("cannot write")
    assert why in said


def test_the_name_of_a_file_must_not_be_a_folder(there):
    (there / "PICTURE.png").mkdir()
    line = "predict VIDEO.mp4 --model MODEL --save-mask PICTURE.png"
    assert "it is a folder" in sentence(run(there, line))


@pytest.mark.parametrize("command", ["status", "verify", "failures", "analyze", "train-selector"])
@pytest.mark.parametrize(
    ("place", "why"),
    [("NOWHERE", "no store at"), ("FILE", "is no store"), ("FOREIGN", "is no store")],
)
def test_what_is_no_store_is_said_to_be_none(there, command, place, why):
    line = f"{command} --store {place}" + " --out NEW" * (command == "train-selector")
    result = run(there, line)
    assert result.exit_code == 1
    assert why in result.output


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{BUILD} --limit 0", "limit must be at least 1"),
        (f"{BUILD} --views 2", "views must be SEGMENTSxCROPS"),
        (f"{BUILD} --sampling stride:0", "sampling must be"),
        (f"{BUILD} --shard-size 0", "shard_size must be"),
        (f"{BUILD} --shard-size 99999999999999999999", "shard_size must be"),
        (f"{BUILD} --seed -1", "seed must be at least 0"),
        (f"{BUILD} --embeddings-per-clip -5", "--embeddings-per-clip takes a number"),
        (f"{BUILD} --device tpu", "device must be auto, cpu, cuda"),
        (f"{BUILD} --decode-timeout inf", "decode_timeout_s must be"),
        (f"{BUILD} --gpus-per-worker nan --workers 1", "gpus_per_worker must be"),
        (f"{BUILD} --split holidays", "no split 'holidays'"),
        (f"{BUILD} --method scorecam", "method must be one of gradcam, hirescam"),
        (f"{BUILD} --target guess", "target must be one of label, predicted"),
        (f"{BUILD} --oracle gradcam --oracle scorecam", "method must be one of gradcam, hirescam"),
        (f"{BUILD} --oracle gradcam@embeddings:guess", "got 'gradcam@embeddings:guess'"),
        (f"{BUILD} --oracle fem --oracle fem:label", "the oracle fem is asked for more than once"),
        (f"{BUILD} --oracle gradcam --layer embeddings", "and --layer says it again"),
        (f"{BUILD} --oracle fem --method fem --target label", "and --method, --target says it"),
        (f"{BUILD} --retry-failed sometimes", "--retry-failed takes"),
        (f"{BUILD.replace('synthetic', 'ssv3')}", "unknown dataset 'ssv3'"),
        (f"{BUILD.replace('synthetic', 'FOREIGN')}", "unknown dataset"),
        (
            f"{BUILD.replace('synthetic', 'nowhere.yaml')}",
            "no dataset specification at nowhere.yaml",
        ),
        (f"{BUILD.replace('DATA', 'NOWHERE')}", "no folder at the data root"),
        (f"{BUILD.replace('DATA', 'FILE')}", "no folder at the data root"),
        (f"{BUILD.replace('NEW', 'FOREIGN')}", "is no store and not empty"),
        (f"{BUILD} --backbone FOREIGN", "config.json"),
        ("evaluate --out NEW", "evaluating needs the videos"),
        ("evaluate --out FOREIGN --table-only", "is no evaluation"),
        ("evaluate --out STORE --table-only", "STORE is no evaluation"),
        (f"{EVALUATE} --keep-ratios half", "keep ratios are numbers in (0, 1]"),
        (f"{EVALUATE} --gflops 80,half", "GFLOPs are numbers above 0, got 'half'"),
        (f"{EVALUATE} --keep-ratios nan", "a keep ratio must lie in (0, 1]"),
        (f"{EVALUATE} --seeds 0", "num_seeds must be at least 1"),
        (f"{EVALUATE} --methods lite", "needs its trained selector"),
        (f"{EVALUATE} --methods lite --selector NOWHERE", "no selector in"),
        (f"{EVALUATE} --methods lite --selector FOREIGN", "no selector in"),
        (f"{EVALUATE} --methods lite --selector FILE", "no selector in"),
        (f"{TRAIN} --hidden 0", "width must be at least 1"),
        (f"{TRAIN} --layers -3", "num_layers must be at least 1"),
        (f"{TRAIN} --lr nan", "learning_rate must be above 0"),
        (f"{TRAIN} --seed -1", "seed must be at least 0"),
        (f"{TRAIN} --held-out 2", "held"),
        (f"{TRAIN} --device nonsense", "device 'nonsense' cannot be used"),
        (f"{STANDIN} --lr nan", "learning_rate must be above 0"),
        (f"{STANDIN} --seed -1", "seed must be at least 0"),
        (f"{STANDIN} --device nonsense", "device 'nonsense' cannot be used"),
        (f"{STANDIN.replace('DATA', 'FILE')}", "no folder at the data root"),
        (f"{MAKE} --seed -1", "a seed from 0"),
        ("datasets make ssv2 --videos 4 --out NEW", "cannot make 'ssv2'"),
        ("datasets check nowhere.yaml --data-root DATA", "no dataset specification"),
        ("datasets check ssv2 --data-root FILE", "no folder at the data root"),
        (f"{TRAIN} --oracle hirescam@embeddings", "it has gradcam@blocks.-1.output. Name one"),
        (f"{TRAIN} --oracle @", "an oracle is called METHOD, METHOD@LAYER"),
        ("analyze --store STORE --oracle fem", "it has gradcam@blocks.-1.output. Name one"),
        ("analyze --store STORE --tail nan", "--tail must lie in (0, 1]"),
        ("failures --store STORE --status sad", "no status is called 'sad'"),
        ("predict VIDEO.mp4 --model FOREIGN", "no selector in"),
        ("export-lite --model MODEL", "give --out FOLDER, --push"),
        ("calibrate --model FILE --eval EVALUATION --max-loss 1", "is no folder"),
    ],
)
def test_a_wrong_value_is_one_sentence(there, line, said):
    assert said in sentence(run(there, line))


@pytest.mark.parametrize(
    "line",
    [
        f"{BUILD} --limit many",
        f"{BUILD} --decode-timeout soon",
        f"{MAKE} --workers -1",
        f"{STANDIN} --threads 0",
        "demo --workers -1",
        "datasets check ssv2 --data-root DATA --show -1",
        "predict VIDEO.mp4 --model MODEL --top 0",
        "status",
        "status STORE",
        "statsu --store STORE",
    ],
)
def test_what_does_not_parse_exits_with_2(there, line):
    result = run(there, line)
    assert result.exit_code == 2
    assert "Usage: lite-pipeline" in result.stderr
