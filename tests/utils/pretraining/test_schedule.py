import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UsageError
from utils.pretraining.schedule import WARM_UP, Budget, Schedule


class TestBudget:
    @pytest.mark.parametrize(
        ("text", "budget"),
        [
            ("300000", Budget(pictures=300_000)),
            ("90s", Budget(seconds=90)),
            ("20m", Budget(seconds=1200)),
            ("1.5h", Budget(seconds=5400)),
        ],
    )
    def test_reads_pictures_and_times(self, text, budget):
        assert Budget.parse(text) == budget

    @pytest.mark.parametrize("text", ["", "m", "0", "-5", "1.5", "3d", "nanh", "infs", "-1m", "x"])
    def test_says_what_it_takes(self, text):
        with pytest.raises(UsageError, match="expected --budget as a number of pictures"):
            Budget.parse(text)


class TestSchedule:
    @given(st.integers(100, 10**6), st.integers(1, 64), st.sampled_from((0.5, 0.95)))
    def test_by_pictures_it_falls_in_the_last_part_and_ends_with_the_budget(
        self, total, batch, fall
    ):
        batch = max(batch, total // 400)
        budget, schedule, step, rates = Budget(pictures=total, fall=fall), Schedule(), 0, []
        while not schedule.is_over(step):
            rates.append(schedule.factor(step + WARM_UP))
            step += 1
            schedule = schedule.advance(budget, step, batch, 0.0)
        assert total <= step * batch < total + 2 * batch
        assert abs(schedule.fall_start - (1 - fall) * step) <= 1
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == 1

    def test_by_time_the_last_part_is_as_many_steps_as_that_time_took_so_far(self):
        budget = Budget(seconds=100)
        steady = Schedule().advance(budget, 500, 16, 49.9)
        assert steady == Schedule()
        falling = steady.advance(budget, 640, 16, 50.1)
        assert falling == Schedule(640, 1280)
        assert steady.advance(budget, 640, 16, 50.1, slowdown=2.5) == Schedule(640, 896)
        assert falling.advance(budget, 650, 16, 1e9) == falling
        assert not falling.is_over(1279)
        assert falling.is_over(1280)

    def test_by_time_it_may_fall_nearly_from_the_beginning(self):
        budget = Budget.parse("100s", fall=0.95)
        assert Schedule().advance(budget, 49, 16, 4.9) == Schedule()
        assert Schedule().advance(budget, 50, 16, 5.1) == Schedule(50, 1000)

    def test_rises_first(self):
        assert Schedule().factor(0) == 1 / WARM_UP
        assert Schedule().factor(WARM_UP - 1) == 1
        assert Schedule().factor(WARM_UP - 1, warm_up=2 * WARM_UP) == 0.5
        assert math.isclose(Schedule(600, 800).factor(700), 0.5)
