"""The trial table: what has been tried and what is to be, shared by any number of workers.

It lives in SQLite or PostgreSQL. A worker *claims* a trial for the length of a lease and renews the
lease while it trains; if the worker dies, the lease runs out and another worker claims the trial. A
setting stands in the table once for every rung, whoever asks for it, and only the worker that holds
a trial can say how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mien.errors import RunError

SCHEMA = 1
"""Version of the tables; a database of another version is refused, not guessed at."""

PATIENCE = 30
"""Seconds to wait for a database that another process has locked."""

MOST_LOST = 5
"""Workers that a trial may lose before it has failed: it may be what kills them."""

_TABLES = sa.MetaData()
_schema = sa.Table(
    "mien_schema", _TABLES, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False)
)
_searches = sa.Table(
    "mien_searches",
    _TABLES,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
)
_trials = sa.Table(
    "mien_trials",
    _TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("search", sa.ForeignKey("mien_searches.name"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("setting", sa.String, nullable=False),
    sa.Column("rung", sa.Integer, nullable=False),
    sa.Column("work", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False, default="waiting"),
    sa.Column("worker", sa.String),
    sa.Column("claims", sa.Integer, nullable=False, default=0),
    sa.Column("lost", sa.Integer, nullable=False, default=0),
    sa.Column("lease", sa.Float),  # until when, in seconds since 1970 by the database's clock
    sa.Column("value", sa.Float),
    sa.Column("reason", sa.Text),
    sa.Column("measured", sa.Text),  # JSON: runs, epochs, images, seconds
    sa.UniqueConstraint("search", "setting", "rung"),
    sa.UniqueConstraint("search", "number", "rung"),
)


@dataclass(frozen=True)
class Trial:
    """A setting on a rung.

    Attributes
    ----------
    number : of the setting, in the order in which settings entered the search
    setting : its key (see `mien.search.space.setting_key`)
    rung : counted from 0
    work : what is trained, as text; trials that come to the same training have the same
    state : ``"waiting"``, ``"running"``, ``"done"`` or ``"failed"``
    worker : who has claimed it last, as host, process and number
    claims, lost : how often it was claimed, and how often its worker died with it
    value : what was measured, or None
    reason : why it failed, or None
    measured : ``runs`` (names), ``epochs``, ``images``, ``epoch_images`` and ``seconds``
    """

    id: int
    number: int
    setting: str
    rung: int
    work: str
    state: str = "waiting"
    worker: str | None = None
    claims: int = 0
    lost: int = 0
    value: float | None = None
    reason: str | None = None
    measured: Mapping[str, Any] | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The setting's value of each parameter."""
        return json.loads(self.setting)


class TrialTable:
    """The trials of one search.

    Parameters
    ----------
    storage : ``sqlite:///FILE``, ``postgresql://USER@HOST/NAME``, or the path of an SQLite file
    search : the search's name
    description : what a search is, by part; one of this name that was begun with another is refused
    lease : seconds after which a trial whose worker is not heard of is given to another

    Raises
    ------
    RunError
        if the database cannot be reached, is locked, is none, or is of another version, or the
        search was begun with another description.
    """

    def __init__(
        self, storage: str, search: str, description: Mapping[str, Any], lease: float = 60
    ) -> None:
        self.search, self.lease = search, lease
        self._engine = _engine(storage)
        self.storage = self._engine.url.render_as_string(hide_password=True)
        with self._transaction() as connection:
            self._check_version(connection)
            self._begin_search(connection, json.loads(json.dumps(description)))

    def _check_version(self, connection: sa.Connection) -> None:
        if self._engine.dialect.name == "postgresql":
            # Two that make the same tables at once would fail; the number is any but always it.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x6D69656E)))
        _TABLES.create_all(connection, tables=[_schema])
        version = connection.scalar(sa.select(_schema.c.version))
        if version is None:
            connection.execute(sa.insert(_schema).values(version=SCHEMA))
        elif version != SCHEMA:
            raise RunError(
                f"{self.storage}: has tables of version {version}, this Mien reads {SCHEMA}; use "
                "the version that made it, or another database"
            )
        _TABLES.create_all(connection)

    def _begin_search(self, connection: sa.Connection, description: Mapping[str, Any]) -> None:
        where = _searches.c.name == self.search
        begun = connection.scalar(sa.select(_searches.c.description).where(where))
        if begun is None:
            values = {"name": self.search, "description": json.dumps(description)}
            connection.execute(sa.insert(_searches).values(values))
            return
        before = json.loads(begun)
        others = [k for k in description if before.get(k) != description[k]]
        if others:
            raise RunError(
                f"{self.storage}: search '{self.search}' was begun with another "
                f"{' and another '.join(others)}; give this one another name, or ask for the same"
            )

    def add(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Let these be tried: ``number``, ``setting``, ``rung``, ``work``.

        What stands there already, and a number that another setting has, is left as it is.
        """
        if self._engine.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
        with self._transaction() as connection:
            for trial in trials:
                values = {"search": self.search, **trial}
                connection.execute(insert(_trials).values(values).on_conflict_do_nothing())

    def claim(self, worker: str) -> Trial | None:
        """The next trial to do, now held by `worker`; None if there is none for the moment.

        Higher rungs come first. A trial whose training another one is doing just now is left until
        that is done. One whose lease has run out is taken over.
        """
        table = _trials.c
        with self._transaction() as connection:
            # Claims of one search come one after the other: no two see the same trial waiting, and
            # none sees a training not yet marked as begun. SQLite's transactions are so by nature.
            connection.execute(
                sa.select(_searches).where(_searches.c.name == self.search).with_for_update()
            )
            now = self._now(connection)
            held = sa.and_(table.state == "running", table.lease >= now)
            doing = sa.select(table.work).where(table.search == self.search, held)
            given_up = sa.and_(table.state == "running", table.lease < now)
            next_one = (
                sa.select(_trials)
                .where(
                    table.search == self.search,
                    sa.or_(table.state == "waiting", given_up),
                    table.work.not_in(doing),
                )
                .order_by(table.rung.desc(), table.claims, table.number)
                .limit(1)
                # A late worker may be ending or renewing it in this moment: then it keeps it.
                .with_for_update(skip_locked=True)
            )
            while (row := connection.execute(next_one).mappings().first()) is not None:
                lost = row["lost"] + (row["state"] == "running")
                this = sa.update(_trials).where(table.id == row["id"])
                if lost < MOST_LOST:
                    values = {
                        "state": "running",
                        "worker": worker,
                        "claims": row["claims"] + 1,
                        "lost": lost,
                        "lease": now + self.lease,
                    }
                    connection.execute(this.values(values))
                    return _trial({**row, **values})
                reason = f"its worker died {lost} times, as it does when memory runs out"
                connection.execute(this.values(state="failed", lost=lost, reason=reason))
        return None

    def renew(self, trial: Trial) -> bool:
        """Hold a claimed trial for another lease; False if it is no longer held."""
        with self._transaction() as connection:
            return self._update(connection, trial, lease=self._now(connection) + self.lease)

    def complete(self, trial: Trial, value: float, measured: Mapping[str, Any]) -> bool:
        """Say what a claimed trial came to; False, and nothing done, if it is no longer held."""
        with self._transaction() as connection:
            return self._update(
                connection, trial, state="done", value=value, measured=json.dumps(measured)
            )

    def fail(self, trial: Trial, reason: str) -> bool:
        """Say why a claimed trial came to nothing; False if it is no longer held."""
        with self._transaction() as connection:
            return self._update(connection, trial, state="failed", reason=reason)

    def release(self, trial: Trial) -> bool:
        """Give a claimed trial back undone, for whoever comes next."""
        with self._transaction() as connection:
            return self._update(connection, trial, state="waiting", lease=None)

    @contextlib.contextmanager
    def holding(self, trial: Trial) -> Iterator[None]:
        """Renew the lease of a claimed trial, in a thread, for as long as the context lasts.

        A database that cannot be reached is asked again: the lease may yet be renewed in time, and
        if not, `complete` says so.
        """
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self.lease / 3):
                with contextlib.suppress(RunError):
                    if not self.renew(trial):
                        return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def trials(self) -> list[Trial]:
        """Every trial of the search, by number and rung."""
        with self._transaction() as connection:
            rows = connection.execute(
                sa.select(_trials)
                .where(_trials.c.search == self.search)
                .order_by(_trials.c.number, _trials.c.rung)
            )
            return [_trial(dict(row)) for row in rows.mappings()]

    def _update(self, connection: sa.Connection, trial: Trial, **values: Any) -> bool:
        """Change a trial if the claim it comes from still holds it."""
        held = sa.and_(
            _trials.c.id == trial.id,
            _trials.c.state == "running",
            _trials.c.claims == trial.claims,
        )
        return connection.execute(sa.update(_trials).where(held).values(values)).rowcount == 1

    def _now(self, connection: sa.Connection) -> float:
        """The time by the database's clock, since those of workers' machines differ."""
        if self._engine.dialect.name == "postgresql":
            return float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")))
        return time.time()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            what = " ".join(str(error.orig).split())
            advice = "wait for the other program, or stop it" if "locked" in what else "check it"
            raise RunError(
                f"{self.storage}: the database cannot be used ({what}); {advice}, then run the "
                "same command again. What is trained is kept"
            ) from error


def _engine(storage: str) -> sa.Engine:
    """The engine for a URL or the path of a file; a connection for each transaction."""
    if "://" not in storage:  # not made a URL of, in which ? and % would mean something else
        storage = str(sa.URL.create("sqlite", database=storage))
    url = storage
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    if url.startswith("postgresql+psycopg://"):
        # A worker that froze in the middle of a claim must not keep the others waiting for ever.
        options = f"-c lock_timeout={PATIENCE}s -c idle_in_transaction_session_timeout={PATIENCE}s"
        settings: dict[str, Any] = {"options": options, "connect_timeout": PATIENCE}
    elif url.startswith("sqlite:///") and url != "sqlite:///":
        settings = {"timeout": PATIENCE}
        with contextlib.suppress(OSError):  # opening the file says it better
            Path(sa.make_url(url).database or "").parent.mkdir(parents=True, exist_ok=True)
    else:
        raise RunError(
            f"storage '{url.partition('://')[0]}://...': give sqlite:///FILE for one machine, or "
            "postgresql://USER@HOST/NAME"
        )
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=settings)
    except (ImportError, sa.exc.ArgumentError, ValueError) as error:
        raise RunError(
            f"storage: {error}; PostgreSQL needs pip install 'mien[cluster]', and a URL like "
            "postgresql://USER@HOST/NAME"
        ) from error
    if engine.dialect.name == "sqlite":
        # The driver would begin a transaction only at the first change, after what it rests on was
        # read; SQLite's immediate ones are one at a time from the start.
        sa.event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        sa.event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _trial(row: Mapping[str, Any]) -> Trial:
    fields = {name: row[name] for name in Trial.__dataclass_fields__}
    return Trial(**{**fields, "measured": row["measured"] and json.loads(row["measured"])})


def worker_name(number: int = 0) -> str:
    """Who a worker is: host, process and number."""
    return f"{socket.gethostname()}-{os.getpid()}-{number}"
