"""The search for winning tickets: its levels, trainings, store and verdict."""

from keras_lottery.search.merge_runs import merge_runs
from keras_lottery.search.run import Run
from keras_lottery.search.search import LotteryTicketSearch

__all__ = ["LotteryTicketSearch", "Run", "merge_runs"]
