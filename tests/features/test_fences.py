"""Fences: the highest holds, pending ones are told apart, and no user's id is kept."""

from pathlib import Path

from features.fences import NONE, fences, pending, raise_fence, settle, user_hash


def test_the_highest_fence_holds_whatever_the_order(tmp_path: Path) -> None:
    assert fences(tmp_path) == NONE
    assert not fences(tmp_path)
    for fence in (5, 9, 7):
        raise_fence(tmp_path, user_hash("a"), fence)
        assert fences(tmp_path).of("a") >= fence
    assert (fences(tmp_path).of("a"), fences(tmp_path).of("b")) == (9, 0)
    assert fences(tmp_path).of_all(["b", "a", "a"]).tolist() == [0, 9, 9]


def test_what_is_settled_is_no_longer_pending_and_still_holds(tmp_path: Path) -> None:
    raise_fence(tmp_path, user_hash("a"), 5)
    raise_fence(tmp_path, user_hash("a"), 9)
    assert pending(tmp_path) == {user_hash("a"): 9}
    settle(tmp_path, user_hash("a"), 9)
    assert pending(tmp_path) == {}
    assert fences(tmp_path).of("a") == 9
    raise_fence(tmp_path, user_hash("a"), 12)
    assert pending(tmp_path) == {user_hash("a"): 12}


def test_names_hold_no_user(tmp_path: Path) -> None:
    raise_fence(tmp_path, user_hash("somebody"), 5)
    assert not any("somebody" in str(file) for file in tmp_path.rglob("*"))
