"""The state folder's memory: whole transactions, ids without case, nothing private on the wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_emulator.store import Store, public


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


def test_ids_compare_without_case(store: Store) -> None:
    """ARM ids name the same resource however the SDK spells them."""
    store.put("model", "/Subscriptions/S/models/M", {"name": "M"}, parent="/WS")

    assert {"name": "M"} == store.get("model", "/subscriptions/s/MODELS/m")
    assert [{"name": "M"}] == store.list("model", parent="/ws")


def test_put_again_replaces_and_keeps_the_place(store: Store) -> None:
    """A changed resource stays where it was in the listing, oldest first."""
    store.put("model", "a", {"n": 1})
    store.put("model", "b", {"n": 2})
    store.put("model", "a", {"n": 3})

    assert [{"n": 3}, {"n": 2}] == store.list("model")


def test_delete_says_whether_there_was_one(store: Store) -> None:
    """A second delete is told apart from the first."""
    store.put("model", "a", {})

    assert store.delete("model", "A")
    assert not store.delete("model", "a")
    assert store.get("model", "a") is None


def test_a_transaction_is_kept_whole_or_not_at_all(store: Store) -> None:
    """A handler that fails half-way leaves nothing behind."""

    def fail_half_way() -> None:
        with store.transaction():
            store.put("model", "a", {})
            with store.transaction():
                store.put("model", "b", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert [] == store.list("model")


def test_what_follows_a_commit_follows_only_a_commit(store: Store) -> None:
    """In order, once, after the outermost transaction, and not after one that failed."""
    seen: list[str] = []

    def fail_half_way() -> None:
        with store.transaction():
            store.after_commit(lambda: seen.append("never"))
            raise RuntimeError

    with store.transaction():
        with store.transaction():
            store.after_commit(lambda: seen.append("first"))
        store.after_commit(lambda: seen.append("second"))
        within = list(seen)
    with pytest.raises(RuntimeError):
        fail_half_way()
    with store.transaction():
        pass

    assert ([], ["first", "second"]) == (within, seen)


def test_two_threads_do_not_see_each_other_half_way(store: Store) -> None:
    """A counter that many requests raise at once loses none of them."""
    store.put("counter", "c", {"n": 0})

    def raise_it() -> None:
        for _ in range(50):
            with store.transaction():
                found = store.get("counter", "c")
                assert found is not None
                store.put("counter", "c", {"n": found["n"] + 1})

    threads = [threading.Thread(target=raise_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {"n": 200} == store.get("counter", "c")


def test_what_was_kept_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, even if the process never closed its file."""
    with store.transaction():
        store.put("model", "a", {"n": 1})

    again = Store(tmp_path / "store.sqlite")
    assert {"n": 1} == again.get("model", "a")
    again.close()


def test_private_fields_never_leave() -> None:
    """A field that begins with an underscore is not in an answer, at any depth."""
    document = {"id": "x", "_keys": 1, "properties": {"_secret": 2, "list": [{"_a": 3, "b": 4}]}}

    assert {"id": "x", "properties": {"list": [{"b": 4}]}} == public(document)
