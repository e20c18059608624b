"""The table of `make bench` says what was met, and by whom it could not be compared."""

from __future__ import annotations

from benchmarks.peers.run import Peer
from benchmarks.row import Ahead, Bound, Row, Unit, Within, verdicts
from benchmarks.table import Table


def _table(*rows: Row, peers: tuple[Peer, ...] = ()) -> Table:
    return Table(
        quick=False, begun="now", load=0.0, rows=list(rows), peers={peer.name: peer for peer in peers}
    )


def test_less_time_and_more_of_a_rate_meet_a_goal() -> None:
    fast = Row("call", 1.4, Unit.SECONDS, 1.0, goals=(Within(1.5),))
    slow = Row("call", 1.6, Unit.SECONDS, 1.0, goals=(Within(1.5),))
    many = Row("map", 90.0, Unit.RATE, 100.0, goals=(Within(0.8),))
    few = Row("map", 70.0, Unit.RATE, 100.0, goals=(Within(0.8),))
    met = [[each.met for each in verdicts(row, {})] for row in (fast, slow, many, few)]
    assert met == [[True], [False], [True], [False]]


def test_each_peer_is_judged_by_itself_and_a_missing_one_judges_nothing() -> None:
    row = Row("call", 0.010, Unit.SECONDS, peer="one call, p50", goals=(Ahead(("dask", "ray"), 0.5),))
    peers = {"dask": Peer("dask", {"one call, p50": 0.021}), "ray": Peer("ray", skipped="no wheel")}
    assert [each.met for each in verdicts(row, peers)] == [True, None]


def test_a_figure_above_its_bound_is_not_met() -> None:
    row = Row("memory", 257.0, Unit.MEMORY, goals=(Bound(256),))
    assert [(each.text, each.met) for each in verdicts(row, {})] == [("≤ 256 MiB", False)]


def test_the_table_shows_failures_and_skipped_peers_with_their_reasons() -> None:
    table = _table(Row("call", 0.010, Unit.SECONDS), peers=(Peer("ray", skipped="no wheel"),))
    table.failed["map"] = "ValueError: wrong"
    text = table.text()
    assert "SKIPPED Ray: no wheel" in text
    assert "FAILED map: ValueError: wrong" in text
    assert "10.00 ms" in text


def test_the_json_has_what_the_table_has() -> None:
    dask = Peer("dask", {"map 2000": 500.0})
    row = Row("map", 600.0, Unit.RATE, 1000.0, "alone", "map 2000", (Ahead(("dask",)),))
    (found,) = _table(row, peers=(dask,)).json()["rows"]
    assert found["ratio"] == 0.6
    assert found["peers"] == {"dask": 500.0}
    assert found["goals"] == [{"text": "≥ Dask", "met": True}]
