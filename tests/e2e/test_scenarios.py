"""The scenarios of the engine against the embedded service, through its sockets and its disk."""

import pytest
from scenario import SCENARIOS, Script, play


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_the_service_publishes_what_the_engine_computes(service, tmp_path, file):
    script = Script(file)
    headroom = service(*script.options(tmp_path))
    assert play(script, headroom.api, [headroom.otlp]) > 0


def test_a_service_killed_on_the_way_goes_on_with_the_same_snapshots(service, tmp_path):
    script = Script(next(file for file in SCENARIOS if file.stem == "hot_cpu_is_throttled_and_recovers"))
    headroom = service(*script.options(tmp_path))

    def kill(tick):
        if tick in (7, 33):
            headroom.kill()
            headroom.start()

    assert play(script, headroom.api, [headroom.otlp], kill) > 100
