"""How a job is run: leases, positions, failures, ends; with real rows, and a clock that tests advance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from api.core.errors import DatabaseUnavailable, StorageUnavailable
from api.db.pool import Database
from api.jobs import rows as jobs
from api.jobs.base import Busy, GiveUp, Job, Lease, LeaseLost, Outcome
from api.jobs.feeder import Feeder
from api.jobs.rows import LEASE
from api.jobs.runner import Runner
from tests.api.conftest import Clock, Gateway, KeptQueue, together

SUBJECT = b"subject of a job"
Body = Callable[[bytes, Lease], Outcome]


class Kind:
    """A job that does what the test gives it to do."""

    kind = "test"

    def __init__(self, body: Body = lambda subject, lease: Outcome.DONE) -> None:
        self.body = body
        self.runs = 0

    def run(self, subject: bytes, lease: Lease) -> Outcome:
        self.runs += 1
        return self.body(subject, lease)


class Bench:
    """A runner with the tests' database, and access to the job's row."""

    def __init__(self, gateway: Gateway, job: Kind, tries: int = 3) -> None:
        self.db: Database = gateway.db
        self.clock: Clock = gateway.clock
        self.job = job
        self.queue = KeptQueue()
        kinds: dict[str, Job] = {job.kind: job}
        self.runner = Runner(self.db, kinds, self.queue, self.clock, tries)
        self.feeder = Feeder(self.db, self.queue, self.clock, self.runner.run, {})

    def insert(self, due_in: float | None = None) -> None:
        due_at = None if due_in is None else self.clock() + timedelta(seconds=due_in)
        jobs.insert(self.db, self.job.kind, SUBJECT, self.clock(), due_at)

    def run(self) -> bool:
        return self.runner.run(self.job.kind, SUBJECT)

    def row(self) -> dict[str, object] | None:
        """The row; None if there is none."""
        columns = "state, tries, place, memo, lease_owner, lease_until, due_at, enqueued_at, reason, message"
        found = self.db.one(f"SELECT {columns} FROM job WHERE subject = %s", (SUBJECT,))  # noqa: S608
        return dict(zip(columns.split(", "), found, strict=True)) if found else None

    def pause(self) -> float:
        """Seconds until the job is due."""
        row = self.row()
        assert row
        due = row["due_at"]
        return float((due - self.clock().replace(tzinfo=None)).total_seconds())  # type: ignore[operator]


@pytest.fixture
def bench(gateway: Gateway) -> Iterator[Callable[..., Bench]]:
    gateway.db.execute("DELETE FROM job")
    yield lambda body=lambda subject, lease: Outcome.DONE, tries=3: Bench(gateway, Kind(body), tries)
    gateway.db.execute("DELETE FROM job WHERE kind = 'test'")


Make = Callable[..., Bench]


def fail(ex: Exception) -> Body:
    def body(subject: bytes, lease: Lease) -> Outcome:
        raise ex

    return body


class TestOutcomes:
    def test_a_job_that_is_done_has_no_row_and_is_not_run_again(self, bench: Make) -> None:
        made = bench()
        made.insert()
        assert made.run()
        assert made.row() is None
        assert not made.run()
        assert made.job.runs == 1

    def test_more_is_enqueued_again_with_its_place(self, bench: Make) -> None:
        def segment(subject: bytes, lease: Lease) -> Outcome:
            if lease.place == 2:
                assert lease.memo == b"left"
                return Outcome.DONE
            lease.save(lease.place + 1, b"left")
            return Outcome.MORE

        made = bench(segment)
        made.insert()
        assert made.run()
        row = made.row()
        assert row
        assert (row["place"], row["memo"], row["lease_owner"], row["tries"]) == (1, b"left", None, 0)
        assert made.queue.kept == [("test", SUBJECT)]
        assert made.run()
        assert made.run()
        assert made.row() is None

    def test_later_is_not_run_before(self, bench: Make) -> None:
        made = bench(lambda subject, lease: Outcome.later(3600))
        made.insert()
        assert made.run()
        assert made.pause() == 3600
        assert not made.run()
        made.clock.turn(3600)
        assert made.run()
        assert made.job.runs == 2

    def test_what_a_job_ends_in_its_own_transaction_is_gone_with_its_effect(self, bench: Make) -> None:
        def body(subject: bytes, lease: Lease) -> Outcome:
            made.db.transaction(lease.end)
            return Outcome.DONE

        made = bench(body)
        made.insert()
        assert made.run()
        assert made.row() is None

    def test_an_unknown_kind_stays_for_a_worker_that_knows_it(self, bench: Make) -> None:
        made = bench()
        made.insert()
        assert not made.runner.run("other", SUBJECT)
        assert made.row()

    def test_a_job_inserted_again_is_one_job(self, bench: Make) -> None:
        made = bench()
        made.insert(60)
        made.insert()
        assert made.run()
        assert made.row() is None


class TestFailures:
    @pytest.mark.parametrize(
        ("ex", "reason"),
        [
            (StorageUnavailable("away"), "STORAGE_UNAVAILABLE"),
            (DatabaseUnavailable("away"), "DATABASE_UNAVAILABLE"),
            (ZeroDivisionError("secret=1"), "INTERNAL_ERROR"),
        ],
    )
    def test_a_failure_is_kept_with_its_reason_and_tried_later(
        self, bench: Make, ex: Exception, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = bench(fail(ex))
        made.insert()
        with caplog.at_level(logging.INFO):
            assert made.run()
        row = made.row()
        assert row
        assert (row["state"], row["tries"], row["reason"]) == ("waiting", 1, reason)
        assert "secret" not in str(row["message"])
        assert 2.5 <= made.pause() <= 5
        assert not made.run()
        (line,) = [vars(record) for record in caplog.records if record.message == "job"]
        assert (line["kind"], line["subject"], line["outcome"]) == ("test", SUBJECT.hex(), "failed")
        assert {"seconds", "bytes", "reason", "tries"} <= set(line)

    def test_pauses_double_up_to_a_quarter_of_an_hour(self, bench: Make) -> None:
        made, pauses = bench(fail(StorageUnavailable("away")), tries=20), []
        made.insert()
        for _ in range(12):
            assert made.run()
            pauses.append(made.pause())
            made.clock.turn(1000)
        for tries, pause in enumerate(pauses):
            longest = min(5 * 2**tries, 900)
            assert longest / 2 <= pause <= longest
        assert len(set(pauses)) > 6  # jitter

    def test_after_its_last_try_it_is_dead_until_an_operator_retries(self, bench: Make) -> None:
        made = bench(fail(StorageUnavailable("away for good")))
        made.insert()
        for _ in range(3):
            made.clock.turn(1000)
            assert made.run()
        made.clock.turn(100_000)
        assert not made.run()
        (dead,) = jobs.dead(made.db)
        assert (dead.kind, dead.subject, dead.tries) == ("test", SUBJECT, 3)
        assert (dead.reason, dead.message) == ("STORAGE_UNAVAILABLE", "away for good")
        assert jobs.retry(made.db, made.clock(), "other") == 0
        assert jobs.retry(made.db, made.clock(), "test", b"another subject!") == 0
        assert jobs.retry(made.db, made.clock(), "test", SUBJECT) == 1
        made.job.body = lambda subject, lease: Outcome.DONE
        assert made.run()
        assert made.row() is None

    def test_progress_forgets_failures(self, bench: Make) -> None:
        def body(subject: bytes, lease: Lease) -> Outcome:
            lease.save(lease.place + 1)
            raise StorageUnavailable("now and then")

        made = bench(body)
        made.insert()
        for _ in range(10):
            made.clock.turn(1000)
            assert made.run()
        row = made.row()
        assert row
        assert (row["state"], row["tries"], row["place"]) == ("waiting", 1, 10)

    def test_giving_up_is_dead_immediately(self, bench: Make) -> None:
        made = bench(fail(GiveUp("SOURCE_GONE", "there is nothing to copy")))
        made.insert()
        assert made.run()
        (dead,) = jobs.dead(made.db)
        assert (dead.reason, dead.message, dead.tries) == ("SOURCE_GONE", "there is nothing to copy", 1)

    def test_busy_is_not_counted(self, bench: Make) -> None:
        made = bench(fail(Busy("somebody is at it")))
        made.insert()
        for _ in range(10):
            assert made.run()
            assert made.pause() == 5
            made.clock.turn(5)
        row = made.row()
        assert row
        assert (row["state"], row["tries"]) == ("waiting", 0)

    def test_a_worker_that_dies_of_it_again_and_again_is_counted(self, bench: Make) -> None:
        class Killed(BaseException):
            pass

        def body(subject: bytes, lease: Lease) -> Outcome:
            raise Killed

        made = bench(body)
        made.insert()
        for _ in range(3):
            with pytest.raises(Killed):
                made.run()
            assert not made.run()  # its lease is in force
            made.clock.turn(LEASE.total_seconds() + 1)
        assert made.run()
        assert made.job.runs == 3
        assert jobs.dead(made.db)[0].reason == "WORKER_LOST"


class TestLeases:
    def test_a_duplicate_delivered_at_the_same_moment_runs_once(self, bench: Make) -> None:
        made = bench()
        for _ in range(5):
            made.insert()
            assert sorted(together(*[made.run] * 4)) == [False] * 3 + [True]
        assert made.job.runs == 5

    @pytest.mark.parametrize("jump", [3600, -3600])
    def test_a_clock_that_jumps_loses_and_doubles_nothing(self, bench: Make, jump: int) -> None:
        """The lease was written with a clock an hour off: the next worker takes over, the first writes nothing more."""
        effects: list[str] = []

        def first(subject: bytes, lease: Lease) -> Outcome:
            made.clock.turn(-jump)
            made.job.body = second
            assert made.run()  # the lease ends an hour ago, or too far in the future to be valid
            made.clock.turn(jump)
            made.db.transaction(lease.end)
            effects.append("first")
            return Outcome.DONE

        def second(subject: bytes, lease: Lease) -> Outcome:
            made.db.transaction(lease.end)
            effects.append("second")
            return Outcome.DONE

        made = bench(first)
        made.insert(-7200)
        made.clock.turn(jump)
        assert made.run()
        assert effects == ["second"]
        assert made.row() is None

    @pytest.mark.parametrize("call", ["save", "keep", "end"])
    def test_a_lost_lease_writes_nothing(self, bench: Make, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.jobs.runner.KEEP_LEASE_SECONDS", 0)
        lost: list[str] = []

        def body(subject: bytes, lease: Lease) -> Outcome:
            made.db.execute("UPDATE job SET lease_owner = %s WHERE subject = %s", (b"x" * 16, SUBJECT))
            before = made.row()
            try:
                if call == "end":
                    made.db.transaction(lease.end)
                elif call == "save":
                    lease.save(7)
                else:
                    lease.keep()
            except LeaseLost:
                lost.append(call)
                assert made.row() == before
                raise
            return Outcome.DONE

        made = bench(body)
        made.insert()
        assert made.run()
        assert lost == [call]
        row = made.row()
        assert row
        assert row["lease_owner"] == b"x" * 16

    def test_a_lease_that_is_kept_lasts(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.jobs.runner.KEEP_LEASE_SECONDS", 0)

        def body(subject: bytes, lease: Lease) -> Outcome:
            for _ in range(5):
                made.clock.turn(LEASE.total_seconds() - 1)
                assert not made.run()
                lease.keep()
                lease.keep()  # changes nothing, and is not taken for a lost lease
            return Outcome.DONE

        made = bench(body)
        made.insert()
        assert made.run()
        assert made.row() is None

    def test_a_worker_told_to_stop_ends_its_segment_and_begins_none(self, bench: Make) -> None:
        def body(subject: bytes, lease: Lease) -> Outcome:
            assert not lease.stopping
            made.runner.stop()
            assert lease.stopping
            lease.save(1)
            return Outcome.MORE

        made = bench(body)
        made.insert()
        assert made.run()
        row = made.row()
        assert row
        assert (row["place"], row["lease_owner"]) == (1, None)
        assert not made.run()

    def test_a_segment_that_used_its_time_is_told_to_stop(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def body(subject: bytes, lease: Lease) -> Outcome:
            assert not lease.stopping
            monkeypatch.setattr("api.jobs.runner.SEGMENT_SECONDS", -1)
            assert lease.stopping
            return Outcome.MORE

        made = bench(body)
        made.insert()
        assert made.run()
        assert made.row()


class TestFeeder:
    def test_an_emptied_queue_gets_every_row_again(self, bench: Make) -> None:
        made = bench()
        subjects = [bytes([n]) * 16 for n in range(50)]
        jobs.insert_many(made.db, "test", subjects, made.clock())
        made.feeder.look()
        assert sorted(made.queue.kept) == [("test", subject) for subject in subjects]
        made.queue.kept.clear()  # like FLUSHALL
        made.feeder.look()
        assert made.queue.kept == []  # the messages may still be in the queue
        made.clock.turn(16)
        made.feeder.look()
        assert len(made.queue.kept) == 50

    def test_a_queue_that_is_not_low_gets_nothing(self, bench: Make) -> None:
        made = bench()
        jobs.insert_many(made.db, "test", [bytes([n]) * 16 for n in range(120)], made.clock())
        made.feeder.look()
        made.clock.turn(60)
        made.feeder.look()
        assert len(made.queue.kept) == 120
        del made.queue.kept[:30]
        made.feeder.look()
        assert len(made.queue.kept) == 90 + 120

    def test_rows_that_are_not_due_or_held_or_dead_are_left_alone(self, bench: Make) -> None:
        made = bench()
        made.insert(60)
        made.feeder.look()
        assert made.queue.kept == []
        made.clock.turn(60)
        made.feeder.look()
        assert made.queue.kept == [("test", SUBJECT)]
        assert jobs.take(made.db, "test", SUBJECT, b"o" * 16, made.clock())
        made.clock.turn(20)
        made.feeder.look()
        assert len(made.queue.kept) == 1
        jobs.fail(made.db, "test", SUBJECT, b"o" * 16, ("WHY", ""), made.clock(), None)
        made.clock.turn(60)
        made.feeder.look()
        assert len(made.queue.kept) == 1

    def test_without_a_queue_work_is_done_all_the_same(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        made = bench()
        jobs.insert_many(made.db, "test", [bytes([n]) * 16 for n in range(20)], made.clock())
        monkeypatch.setattr(made.queue, "depths", lambda: None)
        made.feeder.look()
        made.feeder.drain(20)
        assert made.db.one("SELECT COUNT(*) FROM job") == (0,)
        assert made.job.runs == 20

    def test_a_database_that_is_away_is_looked_at_again(self, bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        made = bench()
        made.insert()

        def away(db: object) -> list[str]:
            raise DatabaseUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(jobs, "waiting_kinds", away)
            made.feeder.look()
        made.clock.turn(16)
        made.feeder.look()
        assert made.queue.kept == [("test", SUBJECT)]


def test_counts_are_of_waiting_running_and_dead_jobs(bench: Make) -> None:
    made = bench()
    jobs.insert_many(made.db, "test", [bytes([n]) * 16 for n in range(5)], made.clock())
    jobs.insert(made.db, "test", SUBJECT, made.clock(), made.clock() + timedelta(hours=1))
    assert jobs.take(made.db, "test", bytes([1]) * 16, b"o" * 16, made.clock())
    assert jobs.take(made.db, "test", bytes([2]) * 16, b"o" * 16, made.clock())
    jobs.fail(made.db, "test", bytes([2]) * 16, b"o" * 16, ("WHY", "because"), made.clock(), None)
    dead, waiting = jobs.counts(made.db, made.clock())
    assert (dead.kind, dead.state, dead.rows) == ("test", "dead", 1)
    assert (waiting.state, waiting.rows, waiting.running, waiting.delayed) == ("waiting", 5, 1, 1)
    assert waiting.oldest == made.clock()
