"""Clients of the main thread and of others: a signal that ends a request must not lock out anybody else."""

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from skyward.cluster.clients import Clients


def made() -> tuple[Clients, list[httpx.Client]]:
    """Clients, and a list of those that were made."""
    known: list[httpx.Client] = []

    def make() -> httpx.Client:
        known.append(httpx.Client())
        return known[-1]

    return Clients(make), known


def in_thread(clients: Clients) -> httpx.Client:
    """The client that another thread gets."""
    found: list[httpx.Client] = []

    def look() -> None:
        with clients.use() as client:
            found.append(client)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def here(clients: Clients) -> httpx.Client:
    """The client that this thread gets."""
    with clients.use() as client:
        return client


def test_main_thread_shares_its_client_with_nobody() -> None:
    clients, _ = made()
    assert here(clients) is here(clients)
    assert in_thread(clients) is in_thread(clients)
    assert here(clients) is not in_thread(clients)


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_client_that_a_signal_met_is_not_used_again(signal: type[BaseException]) -> None:
    clients, _ = made()
    met, others = here(clients), in_thread(clients)
    with pytest.raises(signal), clients.use():
        raise signal
    assert here(clients) is not met
    assert in_thread(clients) is others


def test_client_outlives_errors_and_streams_that_are_left() -> None:
    clients, _ = made()
    met = here(clients)

    def stream() -> Iterator[int]:
        with clients.use():
            yield 1

    left = stream()
    next(left)
    left.close()  # type: ignore[attr-defined]
    with pytest.raises(httpx.ConnectError), clients.use():
        raise httpx.ConnectError("refused")
    assert here(clients) is met


@pytest.mark.parametrize("where", [here, in_thread])
def test_close_closes_all(where: Callable[[Clients], httpx.Client]) -> None:
    clients, known = made()
    where(clients)
    clients.close()
    assert all(client.is_closed for client in known)
