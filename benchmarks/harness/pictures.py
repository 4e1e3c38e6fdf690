"""A catalogue with real pictures: 1,852 emoji drawn in 3D (MIT) with OpenMoji's names, tags and groups (CC BY-SA 4.0).

Both are fetched by npm into a folder of the home, where the pictures' vectors are kept too; nothing of it is ever committed.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import mobilenet
from features.errors import SeminarError

PACKAGES = ("@lobehub/fluent-emoji-3d@1.1.0", "openmoji@17.0.0")


@dataclass(frozen=True)
class Picture:
    """An item: its code points, its name, tags, group and subgroup, and the picture."""

    code: str
    name: str
    tags: str
    group: str
    subgroup: str
    file: Path

    def row(self, vector: NDArray[np.float32]) -> dict[str, Any]:
        """As history's item rows have it."""
        return {
            "item_id": self.code,
            "title": self.name,
            "category": self.group,
            "brand": None,
            "attributes": json.dumps({"product_type": self.subgroup}),
            "image_vector": vector.tobytes(),
        }


def fetch(folder: Path) -> list[Picture]:
    """The catalogue, in the order of the code points; skin tones apart, which share everything but a colour."""
    modules = folder / "node_modules"
    described, drawn = modules / "openmoji" / "data" / "openmoji.json", modules / "@lobehub" / "fluent-emoji-3d" / "assets"
    if not (described.is_file() and drawn.is_dir()):
        if shutil.which("npm") is None:
            raise SeminarError("npm", "", "is not installed", "install Node.js with npm, which fetches the pictures")
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix", str(folder)]
        run = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, check=False)
        if run.returncode:
            raise SeminarError("npm", " ".join(PACKAGES), "cannot be fetched", (run.stderr.strip() or "see npm")[-300:])
    files = {_code(file.stem): file for file in drawn.glob("*.webp")}
    found = [
        Picture(code, x["annotation"], x["tags"], x["group"], x["subgroups"], files[code])
        for x in json.loads(described.read_text())
        if not x["skintone"] and (code := _code(x["hexcode"])) in files
    ]
    return sorted({picture.code: picture for picture in found}.values(), key=lambda picture: picture.code)


def _code(name: str) -> str:
    return name.lower().replace("-fe0f", "")


def vectors(pictures: list[Picture], cache: Path) -> NDArray[np.float32]:
    """Image vectors [n, 1280] of the pictures, encoded once."""
    codes = np.array([picture.code for picture in pictures])
    if cache.exists():
        with np.load(cache) as stored:
            if np.array_equal(stored["codes"], codes):
                kept: NDArray[np.float32] = stored["vectors"]
                return kept
    found = mobilenet.encode([picture.file for picture in pictures])
    aside = cache.with_suffix(".tmp.npz")
    np.savez(aside, codes=codes, vectors=found)
    aside.replace(cache)
    return found
