"""The Feast repository of one SEMINAR_HOME: its resolved feature_store.yaml, applied and opened in-process.

`feature_store.yaml` names paths in `var/`. Another home gets a copy with its own absolute paths, so that stock commands
work on it too: `feast -f $SEMINAR_HOME/feature_store.yaml ...`.
"""

import runpy
from pathlib import Path

import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView

from features import history
from features.errors import SeminarError
from features.settings import REPOSITORY, settings

CONFIG = "feature_store.yaml"


def configure() -> Path:
    """Write the home's feature_store.yaml and the folders that its sources name; the file's path."""
    home = settings().home
    for table in (*history.SCHEMAS, "state"):
        (home / "history" / table).mkdir(parents=True, exist_ok=True)
    content = yaml.safe_load((REPOSITORY / CONFIG).read_text())
    for section in ("registry", "online_store"):
        path = content[section].get("path", "")
        if path.startswith("var/"):
            content[section]["path"] = str(home / path.removeprefix("var/"))
    file = home / CONFIG
    text = yaml.safe_dump(content, sort_keys=False)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return file


def apply() -> None:
    """What `feast apply` does, without leaving the process: register the definitions, make the online tables."""
    store = FeatureStore(fs_yaml_file=configure())
    # Run anew each time: sources hold the paths of the home that the environment names now.
    found = runpy.run_path(str(REPOSITORY / "features" / "definitions.py"))
    store.apply([x for x in found.values() if isinstance(x, Entity | FeatureView | FeatureService)])


def open_store() -> FeatureStore:
    """The FeatureStore of the home; SeminarError before the first apply."""
    home = settings().home
    if not (home / CONFIG).exists() or not (home / "registry.db").exists():
        raise SeminarError("SEMINAR_HOME", home, "holds no feature registry", "run `seminar apply` first")
    return FeatureStore(fs_yaml_file=home / CONFIG)
