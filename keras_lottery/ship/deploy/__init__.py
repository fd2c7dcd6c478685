"""Files measured one beside the other, and the best of a search's written."""

from keras_lottery.ship.deploy.deployment import Deployment
from keras_lottery.ship.deploy.files import benchmark
from keras_lottery.ship.deploy.plot import plot_files
from keras_lottery.ship.deploy.shrink import shrink
from keras_lottery.ship.deploy.tickets import deploy

__all__ = ["Deployment", "benchmark", "deploy", "plot_files", "shrink"]
