"""The search for winning tickets: the algorithm, and what it stored."""

from keras_lottery.search.run import Run
from keras_lottery.search.search import LotteryTicketSearch

__all__ = ["LotteryTicketSearch", "Run"]
