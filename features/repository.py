"""The Feast repository of one SEMINAR_HOME: its resolved feature_store.yaml, applied and opened in-process.

`feature_store.yaml` names paths in `var/`. Another home gets a copy with its own absolute paths, so that stock commands
work on it too: `feast -f $SEMINAR_HOME/feature_store.yaml ...`.

SEMINAR_ONLINE_STORE may name a file with another online store. `${VAR}` in it stays as it is in the copy: Feast puts the
value in when it reads, so that no password is kept.
"""

import os
import re
import runpy
from pathlib import Path
from typing import Any

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
    chosen = settings().online_store
    if chosen:
        content["online_store"] = _online_store(chosen)
    for section in ("registry", "online_store"):
        path = content[section].get("path", "")
        if path.startswith("var/"):
            content[section]["path"] = str(home / path.removeprefix("var/"))
    file = home / CONFIG
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return file


def _online_store(file: Path) -> dict[str, Any]:
    """The section `online_store` of a file."""
    try:
        text = file.read_text()
        section = yaml.safe_load(text)["online_store"]
        section["type"]
    except OSError as error:
        raise SeminarError("SEMINAR_ONLINE_STORE", file, f"cannot be read ({error.strerror})", "name a file") from None
    except (yaml.YAMLError, KeyError, TypeError):  # not the error's text: it may show a password
        raise SeminarError(
            "SEMINAR_ONLINE_STORE", file, "has no section online_store with a type", "write it as features/redis.yaml"
        ) from None
    for variable in re.findall(r"\$\{(\w+)\}", str(section)):
        if variable not in os.environ:
            raise SeminarError(variable, "", "is not set", f"export it: {file.name} names it")
    return dict(section)


class _Dumper(yaml.SafeDumper):
    """Writes what names variables as blocks: a password is put in as text, and may hold quotes, colons and hashes."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "${" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def apply() -> None:
    """What `feast apply` does, without leaving the process: register the definitions, make the online tables."""
    store = FeatureStore(fs_yaml_file=configure())
    # Run anew each time: sources hold the paths of the home that the environment names now.
    found = runpy.run_path(str(REPOSITORY / "features" / "definitions.py"))
    store.apply([x for x in found.values() if isinstance(x, Entity | FeatureView | FeatureService)])


def open_store() -> FeatureStore:
    """The FeatureStore of the home; SeminarError before the first apply, and where the home was copied or moved since."""
    home = settings().home
    if not (home / CONFIG).exists() or not (home / "registry.db").exists():
        raise SeminarError("SEMINAR_HOME", home, "holds no feature registry", "run `seminar apply` first")
    # Paths in the file are absolute: a copied one leads to the original's registry and online store.
    named = Path(yaml.safe_load((home / CONFIG).read_text())["registry"]["path"])
    if named.resolve() != (home / "registry.db").resolve():
        raise SeminarError(
            "SEMINAR_HOME", home, f"holds a {CONFIG} that belongs to another home ({named.parent})", "run `seminar apply`"
        )
    return FeatureStore(fs_yaml_file=home / CONFIG)
