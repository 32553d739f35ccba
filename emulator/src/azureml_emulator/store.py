"""Everything the emulator remembers, in one SQLite file: nothing acknowledged is ever lost.

Resources are JSON documents under a kind and a key. Keys that are ARM ids compare without case, as
Azure's do. A field whose name begins with an underscore is the emulator's own and never leaves it
(:func:`public`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Document = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    key TEXT NOT NULL COLLATE NOCASE,
    parent TEXT NOT NULL COLLATE NOCASE,
    body TEXT NOT NULL,
    UNIQUE (kind, key)
);
CREATE INDEX IF NOT EXISTS documents_parent ON documents (kind, parent);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    due REAL NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL COLLATE NOCASE,
    payload TEXT NOT NULL,
    operation TEXT,
    state TEXT NOT NULL DEFAULT 'pending'
);
CREATE INDEX IF NOT EXISTS events_due ON events (state, due, id);
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    entry TEXT NOT NULL,
    meter INTEGER NOT NULL,
    resource TEXT NOT NULL COLLATE NOCASE,
    details TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS ledger_no_update BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS ledger_no_delete BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- INSERT OR REPLACE deletes without asking the trigger above.
CREATE TRIGGER IF NOT EXISTS ledger_no_replace BEFORE INSERT ON ledger
WHEN NEW.seq <= (SELECT max(seq) FROM ledger) AND NEW.seq > 0
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    query TEXT NOT NULL,
    status INTEGER NOT NULL,
    seconds REAL NOT NULL,
    fault TEXT
);
CREATE TABLE IF NOT EXISTS metrics (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    key TEXT NOT NULL,
    value REAL NOT NULL,
    step INTEGER NOT NULL,
    timestamp INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS metrics_run ON metrics (run, key, step);
"""


class Store:
    """One SQLite connection behind one lock.

    Args:
        path: The database file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._after: list[Callable[[], object]] = []
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the store alone; all changes inside are kept together, or none. Nests."""
        with self._lock:
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._db.execute("ROLLBACK")
                    self._after.clear()
                raise
            self._depth -= 1
            if self._depth == 0:
                self._db.execute("COMMIT")
                after, self._after = self._after, []
                for act in after:
                    act()

    def after_commit(self, act: Callable[[], object]) -> None:
        """Do *act* once the transaction that goes on has been kept, before anyone sees it."""
        with self._lock:
            assert self._depth, "there is no transaction"
            self._after.append(act)

    def execute(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Run one statement and return its rows."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def insert(self, sql: str, *values: Any) -> int:
        """Run one INSERT and return the new row's number."""
        with self._lock:
            number = self._db.execute(sql, values).lastrowid
            assert number is not None
            return number

    def put(self, kind: str, key: str, body: Document, *, parent: str = "") -> None:
        """Keep *body* under *kind* and *key*; what was there before is replaced."""
        self.execute(
            "INSERT INTO documents (kind, key, parent, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body, parent = excluded.parent",
            kind,
            key,
            parent,
            json.dumps(body),
        )

    def get(self, kind: str, key: str) -> Document | None:
        """Return the document, or None."""
        rows = self.execute("SELECT body FROM documents WHERE kind = ? AND key = ?", kind, key)
        return json.loads(rows[0]["body"]) if rows else None

    def list(self, kind: str, *, parent: str | None = None) -> list[Document]:
        """Return the documents of *kind*, oldest first, those of one *parent* if it is given."""
        if parent is None:
            rows = self.execute("SELECT body FROM documents WHERE kind = ? ORDER BY seq", kind)
        else:
            rows = self.execute(
                "SELECT body FROM documents WHERE kind = ? AND parent = ? ORDER BY seq",
                kind,
                parent,
            )
        return [json.loads(row["body"]) for row in rows]

    def delete(self, kind: str, key: str) -> bool:
        """Forget the document; return whether there was one."""
        return bool(
            self.execute("DELETE FROM documents WHERE kind = ? AND key = ? RETURNING 1", kind, key)
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def public(document: Document) -> Document:
    """Return *document* without the emulator's own fields, at every depth."""
    return {name: _public(value) for name, value in document.items() if name[:1] != "_"}


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return public(value)
    if isinstance(value, list):
        return [_public(item) for item in value]
    return value
