"""Worker processes that train, on this machine or in a Ray cluster."""

from keras_lottery.search.workers.choose import as_before as as_before
from keras_lottery.search.workers.choose import check_workers as check_workers
from keras_lottery.search.workers.choose import employ as employ
from keras_lottery.search.workers.pool import Trainer as Trainer
