"""Published layouts, in small files as they are published: Amazon reviews of 2018 and 2023, KuaiSAR."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from features import history
from features.errors import SeminarError
from features.online import Online
from streaming.datasets.amazon import Amazon
from streaming.datasets.dataset import DataSet
from streaming.datasets.kuaisar import KuaiSAR
from streaming.events import parse
from streaming.importer import dataset_messages, import_dataset

REVIEW_2018 = {
    "overall": 5.0,
    "vote": "2",
    "verified": True,
    "reviewTime": "01 1, 2018",
    "reviewerID": "AUI6WTTT0QZYS",
    "asin": "5120053084",
    "style": {"Size:": "Large"},
    "reviewerName": "Abbey",
    "reviewText": "I now have 4 of the 5 available colors of this shirt...",
    "summary": "Comfy, flattering, discreet",
    "unixReviewTime": 1514764800,
}
META_2018 = {
    "category": ["Clothing", "Women", "Shirts &amp; Tops"],
    "tech1": "",
    "description": [],
    "title": "Shirt &amp; tie",
    "also_buy": [],
    "brand": "Coxlures",
    "feature": [],
    "main_cat": "AMAZON FASHION",
    "price": "$3.17",
    "asin": "5120053084",
    "imageURL": [],
}
REVIEW_2023 = {
    "rating": 4.0,
    "title": "Such a lovely scent",
    "text": "This spray is really nice.",
    "images": [],
    "asin": "B00YQ6X8EO",
    "parent_asin": "B00YQ6X8EO",
    "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
    "timestamp": 1588687728923,
    "helpful_vote": 0,
    "verified_purchase": True,
}
META_2023 = {
    "main_category": "All Beauty",
    "title": "Howard LC0008 Leather Conditioner, 8-Ounce (4-Pack)",
    "average_rating": 4.8,
    "rating_number": 10,
    "features": [],
    "description": [],
    "price": None,
    "images": [],
    "videos": [],
    "store": None,
    "categories": ["Beauty", "Care"],
    "details": {"Brand": "Howard"},
    "parent_asin": "B00YQ6X8EO",
    "bought_together": None,
}


def events(data: DataSet) -> list[tuple[str, int, dict[str, Any]]]:
    return [(x.type, x.time_ms, x.data) for x in map(parse, dataset_messages(data))]


def lines(file: Path, *rows: object) -> None:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_amazon_of_2018(tmp_path: Path, packed: str) -> None:
    lines(tmp_path / f"AMAZON_FASHION_5.json{packed}", REVIEW_2018)
    lines(tmp_path / f"meta_AMAZON_FASHION.json{packed}", META_2018)
    item = {
        "item_id": "5120053084",
        "title": "Shirt & tie",
        "category": "AMAZON FASHION",
        "brand": "Coxlures",
        "attributes": {"level 1": "Women", "level 2": "Shirts & Tops", "product_type": "Shirts & Tops"},
    }
    browse = {"user_id": "AUI6WTTT0QZYS", "item_id": "5120053084"}
    assert events(Amazon(tmp_path)) == [("item", 0, item), ("browse", 1_514_764_800_000, browse)]


def test_amazon_of_2023(tmp_path: Path) -> None:
    lines(tmp_path / "All_Beauty.jsonl", REVIEW_2023)
    lines(tmp_path / "meta_All_Beauty.jsonl", META_2023)
    (_, _, item), (kind, time_ms, browse) = events(Amazon(tmp_path))
    assert (item["brand"], item["category"], item["attributes"]["product_type"]) == ("Howard", "All Beauty", "Care")
    assert (kind, time_ms) == ("browse", 1_588_687_728_923)
    assert browse == {"user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "item_id": "B00YQ6X8EO"}


def test_bad_lines_of_amazon_are_dead_letters(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    lines(folder / "A.json", "{'python': 'dict'}", "[1]", REVIEW_2018, REVIEW_2018, REVIEW_2018 | {"unixReviewTime": None})
    lines(folder / "meta_A.json", META_2018, META_2018 | {"asin": ""})
    done, refusals = import_dataset(Amazon(folder), Online(), home)
    assert (done.counts, done.rejected) == ({"item": 1, "browse": 2}, 4)
    assert len(history.read_sequences(home).records) == 1  # the review that is there twice is one
    assert [x.split(":")[0] for x in refusals.examples] == [
        "meta_A.json line 2",
        "A.json line 1",
        "A.json line 2",
        "A.json line 5",
    ]


def test_amazon_needs_both_kinds_of_files(tmp_path: Path) -> None:
    lines(tmp_path / "A.jsonl", REVIEW_2023)
    with pytest.raises(SeminarError, match="has no meta_"):
        Amazon(tmp_path)


_SEARCH = "search_session_id,search_session_time,search_session_timestamp,keyword,search_source"
SEARCHED = f"user_id,{_SEARCH},item_id,click_cnt,item_type"
SRC = f"""{SEARCHED}
7,2,2023-05-22 21:58:52,1684763932919.0,"[20, 34, 3]",USER_INPUT,101,1,VIDEO
7,1,2023-05-22 21:00:00,1684760400000,[5],USER_INPUT,102,0,VIDEO
7,2,2023-05-22 21:58:52,1684763932919.0,"[20, 34, 3]",USER_INPUT,55,1,USER
7,2,2023-05-22 21:58:52,1684763932919.0,"[20, 34, 3]",USER_INPUT,103,0,VIDEO
8,1,2023-05-23 00:00:00,never,[5],USER_INPUT,101,1,VIDEO
"""
REC = """user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,search_item_related
7,101,60792.0,45400.0,2023-05-22 15:53:20,1.684742e+12,1,0,1,0,1,0
7,102,0.0,45400.0,2023-05-22 15:53:20,1.684742e+12,0,0,0,0,0,0
8,103,500.0,45400.0,2023-05-22 15:53:21,1684742001000.0,1,0,0,0,0,0
"""
LEVELS = [f"{n}_level_category_{what}" for n in ("first", "second", "third", "fourth") for what in ("id", "name", "name_en")]
ITEM = ",".join(["item_id", "caption", "author_id", "item_type", "upload_time", "upload_type", *LEVELS])
FEATURES = f"""{ITEM}
101,"[1, 213, 24]",10,NORMAL,2023-04-22,LongImport,9,搞笑,Funny,136,搞笑段子,Funny joke,0,空,empty,0,空,empty
102,[],0,NORMAL,1970-01-01,LongImport,0,空,empty,0,空,empty,0,空,empty,0,空,empty
103,[4],11,NORMAL,2023-04-23,LongImport,9,搞笑,Funny,0,空,empty,0,空,empty,0,空,empty
"""


@pytest.fixture
def kuaisar(tmp_path: Path) -> Path:
    folder = tmp_path / "KuaiSAR_final"
    folder.mkdir()
    for name, text in (("src_inter", SRC), ("rec_inter", REC), ("item_features", FEATURES)):
        (folder / f"{name}.csv").write_text(text)
    (folder / "user_features.csv").write_text(
        "user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2\n7,1,1,1,3\n"
    )
    (folder / "social_network.csv").write_text("user_id,user_follow_id\n7,8\n")
    return folder


def test_kuaisar_joins_searches_impressions_and_clicks(home: Path, kuaisar: Path) -> None:
    data = KuaiSAR(kuaisar)
    parsed = [parse(x) for x in dataset_messages(data) if x.problem is None]
    by_kind: dict[str, list[Any]] = {}
    for x in parsed:
        by_kind.setdefault(x.type, []).append(x)
    items = {x.key: x for x in by_kind["item"]}
    assert items["101"].data == {
        "item_id": "101",
        "title": "1 213 24",
        "category": "Funny",
        "attributes": {
            "level 2": "Funny joke",
            "item_type": "NORMAL",
            "upload_type": "LongImport",
            "author": "10",
            "product_type": "Funny joke",
        },
    }
    assert items["101"].time_ms == 1_682_092_800_000  # midnight in Beijing
    assert (items["102"].time_ms, "category" in items["102"].data, items["102"].data["title"]) == (0, False, "")
    assert {(x.key, x.data["query"], x.id) for x in by_kind["search"]} == {("7", "5", "s-7-1"), ("7", "20 34 3", "s-7-2")}
    clicks = {x.id: x for x in by_kind["browse"]}
    assert clicks["s-7-2-1"].data == {
        "user_id": "7",
        "query": "20 34 3",
        "item_id": "USER:55",
        "impression_id": "i-7-2",
        "search_id": "s-7-2",
    }
    feed = clicks["f-7-1684742000000-0"]
    assert (feed.time_ms, feed.data["dwell_s"], feed.data["impression_id"]) == (
        1_684_742_000_000,
        60.792,
        "f-7-1684742000000",
    )
    assert len(clicks) == 4
    shown = {x.id: [i["item_id"] for i in x.data["items"]] for x in by_kind["impression"]}
    assert shown == {
        "i-7-1": ["102"],
        "i-7-2": ["101", "USER:55", "103"],
        "f-7-1684742000000": ["101", "102"],
        "f-8-1684742001000": ["103"],
    }
    done, refusals = import_dataset(data, Online(), home)
    assert done.rejected == 1
    assert refusals.examples[0].startswith("src_inter.csv line 6: search_session_timestamp: 'never' is no time")
    assert len(history.read_sequences(home).records) == 6


def test_kuaisar_without_a_file_or_a_column(kuaisar: Path) -> None:
    text = (kuaisar / "src_inter.csv").read_text()
    (kuaisar / "src_inter.csv").write_text(text.replace("keyword", "words"))
    with pytest.raises(SeminarError, match=r"keyword.*is missing"):
        list(dataset_messages(KuaiSAR(kuaisar)))
    (kuaisar / "src_inter.csv").unlink()
    with pytest.raises(SeminarError, match=r"has no src_inter\.csv"):
        KuaiSAR(kuaisar)
