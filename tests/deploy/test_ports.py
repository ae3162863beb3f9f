import socket

from deploy.ports import FIRST, LAST, free_port, is_free


def test_a_free_port_can_be_bound_and_a_taken_one_is_not_free() -> None:
    port = free_port()
    assert FIRST <= port <= LAST
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(1)
        assert not is_free(port)
    assert is_free(port)


def test_taken_ports_are_left_out() -> None:
    middle = (FIRST + LAST) // 2
    for _ in range(20):
        assert free_port(range(FIRST, middle)) >= middle
