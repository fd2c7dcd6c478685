"""The search for winning tickets: the algorithm, and what it stored."""

from keras_lottery.search.search import LotteryTicketSearch
from keras_lottery.search.stored import StoredSearch

__all__ = ["LotteryTicketSearch", "StoredSearch"]
