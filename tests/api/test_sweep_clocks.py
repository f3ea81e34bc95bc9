"""Sweeps with clocks that jump, two in parallel, and dry: nothing is deleted early or twice, or at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api.db import deployment
from api.sweep import Sweep
from api.sweep import rows as listings
from api.sweep.moments import Moment
from api.sweep.run import Run
from tests.api.conftest import Content, Gateway, User, together
from tests.api.sweeping import DAY, HOUR, doubts, keys, left, sweep, swept_gateway

gateway = swept_gateway


class TestClocks:
    """A sweep whose clocks a test sets one by one."""

    @pytest.fixture
    def hands(self, gateway: Gateway) -> dict[str, float]:
        now = gateway.clock().timestamp()
        hands = {"database": now, "wall": now, "boot": 1000.0}
        gateway.db.execute("DELETE FROM listing")
        deployment.put(gateway.db, "swept", Moment(**hands, boot_id="here").text())

        def read() -> Moment:
            return Moment(**hands, boot_id="here")

        made = Sweep(gateway.services.context, gateway.services.usage, read)
        object.__setattr__(gateway.services, "sweep", made)
        return hands

    @staticmethod
    def turn(hands: dict[str, float], seconds: float, *names: str) -> None:
        for name in names or hands:
            hands[name] += seconds

    @pytest.mark.parametrize("names", [("database",), ("wall",), ("database", "wall")])
    def test_a_clock_that_leaps_makes_nothing_old(
        self, gateway: Gateway, hands: dict[str, float], names: tuple[str, ...]
    ) -> None:
        orphans = keys(gateway, 1)
        sweep(gateway)
        self.turn(hands, 48 * HOUR, *names)
        self.turn(hands, 60)
        sweep(gateway)
        sweep(gateway, accept=True)
        assert left(gateway, orphans) == 1
        assert [row.seconds for row in listings.sightings(gateway.db, "local", 9)] == [60]
        self.turn(hands, DAY - 60)
        sweep(gateway)
        assert left(gateway, orphans) == 0

    def test_a_clock_that_goes_back_and_comes_again_makes_nothing_old(
        self, gateway: Gateway, hands: dict[str, float]
    ) -> None:
        orphans = keys(gateway, 1)
        sweep(gateway)
        for seconds in (-48 * HOUR, 48 * HOUR):
            self.turn(hands, seconds, "database", "wall")
            self.turn(hands, 60)
            sweep(gateway)
        assert left(gateway, orphans) == 1

    def test_a_leap_holds_back_expiry_and_the_trash_until_a_person_says(
        self, gateway: Gateway, hands: dict[str, float]
    ) -> None:
        user = gateway.user()
        upload, file = user.create(Content(b"not expired")), user.upload(Content(b"trashed"))
        user.call("DELETE", f"/files/{file['id']}")
        self.turn(hands, 40 * DAY, "database", "wall")
        done = sweep(gateway)
        assert not {"uploads_expired", "files_purged"} & set(done)
        assert "clock" in doubts(gateway)
        assert upload["id"] in gateway.storage.uploads
        done = sweep(gateway, accept=True)
        assert (done["uploads_expired"], done["files_purged"]) == (1, 1)

    def test_one_clock_ahead_of_the_other_ends_nothing_early(self, gateway: Gateway, hands: dict[str, float]) -> None:
        user = gateway.user()
        user.create(Content(b"alive"))
        for name in ("database", "wall"):
            self.turn(hands, 8 * DAY, name)
            assert "uploads_expired" not in sweep(gateway, accept=True) or name == "wall"


class TestTwoAtOnce:
    def test_two_sweeps_at_the_same_moment_do_everything_once(
        self, build: Callable[..., Gateway], gateway: Gateway, user: User
    ) -> None:
        other = build(database_url=gateway.config.database_url)
        other.storage.objects, other.storage.uploads = gateway.storage.objects, gateway.storage.uploads
        object.__setattr__(other, "clock", gateway.clock)
        known = user.upload(Content(b"known"))
        for n in range(5):
            user.call("DELETE", f"/files/{user.upload(Content(f'trash {n}'.encode()))['id']}")
        keys(gateway, 5)

        def unlocked(made: Gateway) -> Callable[[], object]:
            sweeps = made.services.sweep
            sweeps._moments = gateway.services.sweep._moments
            # without the lock, a second sweep must be harmless too
            run = sweeps._sweep

            def go() -> object:
                made_run = Run(sweeps._moments(), whole=True)
                run(made_run, ["local"])
                return made_run.counts

            return go

        for _ in range(4):
            together(unlocked(gateway), unlocked(other), unlocked(other))
            gateway.clock.turn(11 * DAY)
        assert gateway.rows("SELECT LOWER(HEX(id)) FROM file") == ((known["id"],),)
        assert len(gateway.rows("SELECT id FROM `blob`")) == 1
        assert len(gateway.storage.objects) == 1
        for table in ("doomed", "sighting", "blob_candidate", "doubt"):
            assert gateway.rows(f"SELECT * FROM {table}") == (), table  # noqa: S608

    def test_on_schedule_one_of_two_sweeps(self, gateway: Gateway) -> None:
        keys(gateway, 1)
        gateway.clock.turn(DAY)
        with gateway.db.named_lock("sweep", 0) as held:
            assert held
            assert gateway.services.sweep.run() == {}
        assert gateway.services.sweep.run()["unknown_objects"] == 1


class TestDryRun:
    def test_it_prints_its_plan_and_changes_nothing(self, gateway: Gateway, user: User) -> None:
        file = user.upload(Content(b"purged"))
        user.call("DELETE", f"/files/{file['id']}")
        user.create(Content(b"expires"))
        keys(gateway, 2)
        sweep(gateway)
        gateway.clock.turn(31 * DAY)
        tables = [name for (name,) in gateway.rows("SHOW TABLES") if "yoyo" not in name]

        def snapshot() -> object:
            rows = [sorted(map(str, gateway.rows(f"SELECT * FROM `{name}`"))) for name in tables]  # noqa: S608
            return (
                rows,
                dict(gateway.storage.objects),
                {name: dict(held) for name, held in gateway.storage.uploads.items()},
            )

        before, said = snapshot(), []
        found = gateway.services.sweep.by_hand(lambda kind, text: said.append((kind, text)), dry=True)
        assert snapshot() == before
        assert found is not None
        assert found["uploads_expired"] == 1
        assert found["files_purged"] == 1
        assert found["unknown_objects"] == 2
        assert ("files_purged", f"file {file['id']}") in said
        gateway.services.sweep.by_hand(lambda kind, text: None)
        assert snapshot() != before
