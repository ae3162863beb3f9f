from client.runner.pace import Pace


def test_quick_while_busy_and_slow_on_a_quiet_day() -> None:
    now = 0.0
    pace = Pace(busy=0.1, idle=3.0, busy_for=60.0, clock=lambda: now)
    assert pace.seconds == 0.1
    now = 61.0
    assert pace.seconds == 3.0
    pace.work_seen()
    assert pace.seconds == 0.1
    now = 120.0
    assert pace.seconds == 0.1
    now = 121.5
    assert pace.seconds == 3.0
