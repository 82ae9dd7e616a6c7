"""Whether an engine gets on, by what it shows over time."""

import pytest

from vllm_instance.engine import counts
from vllm_instance.progress import NOT_ASKED, Progress

LIMITS = {"ready_seconds": 900, "stall_seconds": 120, "unanswered_seconds": 60}
SECONDS = 5


class Looks:
    """A start that began at 0 and is looked at every five seconds."""

    def __init__(self, served=False):
        self.now = self.asked = 0
        self.progress = Progress(LIMITS, 0, served)

    def until(self, seconds, healthy=True, told=None):
        """Looks until then; returns (the second of the first finding, the finding), or None. told: a value or a function of the second."""
        while self.now < seconds:
            self.now += SECONDS
            due = self.progress.due(self.now)
            finding = self.progress.see(self.now, 0, healthy, NOT_ASKED if not due else told(self.now) if callable(told) else told)
            self.asked += due and healthy
            if finding:
                return self.now, finding
        return None


@pytest.fixture
def looks():
    return Looks()


def test_an_engine_that_loads_has_the_time_it_needs(looks):
    assert looks.until(895, healthy=False) is None
    assert looks.until(2000, healthy=False) == (900, "hang_at_load")
    assert looks.progress.why == "the engine did not become ready within 900 s while its process lived"


def test_health_that_goes_away_is_found_and_a_short_silence_is_not(looks):
    looks.until(5, told=(0, 0))
    assert looks.until(60, healthy=False) is None
    looks.until(65, told=(0, 0))
    assert looks.until(2000, healthy=False) == (125, "unanswered")
    assert looks.progress.why == "/health gave no answer for 60 s while the engine's process lived"


def test_after_a_restart_of_the_watchdog_an_engine_that_served_is_not_given_the_time_to_load():
    looks = Looks(served=True)
    assert looks.until(2000, healthy=False) == (60, "unanswered")


def test_requests_without_a_token_are_asked_after_and_are_a_stall_if_none_comes(looks):
    looks.until(5, told=(1, 100))
    assert looks.until(2000, told=(1, 100)) == (125, "ask")
    assert looks.progress.answer_seconds == 30
    assert looks.progress.silent(155, "timed out", proof=True) == "stall"
    assert looks.progress.why == "requests are in the engine and no token came for 150 s; one more was asked for: timed out"


def test_an_answer_to_a_token_shows_that_numbers_stood_still_and_not_the_engine(looks):
    looks.until(5, told=(1, 100))
    assert looks.until(2000, told=(1, 100)) == (125, "ask")
    looks.progress.answered(126)
    assert looks.until(2000, told=(1, 100)) == (265, "ask"), "and again after as long"


def test_a_refused_token_proves_nothing_for_requests_that_stand_still(looks):
    looks.until(5, told=(1, 100))
    looks.until(2000, told=(1, 100))
    assert looks.progress.silent(126, "it answered with status 401", proof=False) == "stall"


def test_tokens_that_come_are_progress_however_slowly(looks):
    assert looks.until(3000, told=lambda now: (8, now // 100)) is None


def test_requests_that_only_wait_count_too(looks):
    text = 'vllm:num_requests_running{model_name="a"} 0.0\nvllm:num_requests_waiting{model_name="a"} 3.0\nvllm:generation_tokens_total{model_name="a"} 5.0\n'
    assert counts(text) == (3, 5)


def test_the_first_request_after_a_rest_has_its_time(looks):
    looks.until(200, told=(0, 100))
    assert looks.until(310, told=(1, 100)) is None
    assert looks.until(2000, told=(1, 100)) == (325, "ask")


def test_an_engine_that_rests_is_asked_seldom(looks):
    """Its numbers stand still at no request if it hung on its first one."""
    looks.until(5, told=(0, 100))
    assert looks.until(2000, told=(0, 100)) == (245, "ask")
    looks.progress.answered(246)
    assert looks.until(2000, told=(0, 100)) == (505, "ask")
    assert looks.progress.silent(535, "timed out", proof=True) is None
    assert looks.until(2000, told=(0, 100)) == (525, "ask"), "with the next numbers"
    assert looks.progress.silent(555, "timed out", proof=True) == "stall"
    assert looks.progress.why == "no token came for 309 s, and 2 that were asked for did not either: timed out"


def test_a_token_in_between_ends_the_row_of_those_that_stayed_away(looks):
    looks.until(5, told=(0, 100))
    looks.until(2000, told=(0, 100))
    assert looks.progress.silent(275, "timed out", proof=True) is None
    looks.until(300, told=(0, 101))
    assert looks.until(2000, told=(0, 101))[1] == "ask"
    assert looks.progress.silent(looks.now + 30, "timed out", proof=True) is None


def test_the_numbers_are_asked_for_seldom(looks):
    """Each question is a line in the engine's log."""
    looks.until(605, told=lambda now: (1, now))
    assert looks.asked == 31


def test_an_engine_that_tells_nothing_is_asked_and_may_have_a_queue(looks):
    looks.until(5, told=None)
    assert looks.until(2000, told=None) == (245, "ask")
    assert looks.progress.answer_seconds == 120
    assert looks.progress.silent(365, "timed out", proof=True) is None
    looks.until(2000, told=None)
    looks.progress.answered(370)
    assert looks.until(2000, told=None) == (625, "ask")
    assert looks.progress.silent(745, "timed out", proof=True) is None, "the answer in between ended the row"


def test_an_engine_that_refuses_and_tells_nothing_is_left_alone(looks):
    for dummy in range(5):
        second, finding = looks.until(10_000, told=None)
        assert finding == "ask"
        assert looks.progress.silent(second, "it answered with status 404", proof=False) is None


def test_a_limit_of_0_is_not_watched():
    looks = Looks()
    looks.progress.limits = dict.fromkeys(LIMITS, 0)
    assert looks.until(5000, healthy=False) is None
    assert looks.until(10_000, told=(1, 100)) is None
    assert looks.until(15_000, healthy=False) is None


def test_metrics_of_the_versions():
    old = (
        "# HELP vllm:num_requests_running Number of requests currently running on GPU.\n# TYPE vllm:num_requests_running gauge\n"
        'vllm:num_requests_running{model_name="a"} 2.0\nvllm:num_requests_swapped{model_name="a"} 1.0\n'
        'vllm:prompt_tokens_total{model_name="a"} 1.5e+06\nvllm:generation_tokens_total{model_name="a"} 10.0\n'
        'vllm:request_prompt_tokens_sum{model_name="a"} 9.0\n'
    )
    assert counts(old) == (3, 1_500_010)
    new = (
        'vllm:num_requests_running{engine="0",model_name="a"} 1.0\nvllm:num_requests_running{engine="1",model_name="a"} 2.0\n'
        'vllm:generation_tokens_total{engine="0",model_name="a"} 10.0\nvllm:generation_tokens_total{engine="1",model_name="a"} 20.0\n'
        'vllm:generation_tokens_created{engine="0",model_name="a"} 1.79e+09\n'
    )
    assert counts(new) == (3, 30)
    assert counts('vllm:cache_config_info{block_size="16"} 1.0\n') is None, "before the first request"
    assert counts("") is None, "--disable-log-stats"


def test_silence_begins_with_serving_and_not_with_the_start(looks):
    looks.until(800, healthy=False)
    assert looks.until(1040, told=None) is None
