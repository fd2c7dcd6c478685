"""How a ticket is trained: by `model.fit`, in a fused loop, or many at once."""

from keras_lottery.engines.choose import ENGINES as ENGINES
from keras_lottery.engines.choose import make as make
from keras_lottery.engines.engine import Engine as Engine
from keras_lottery.engines.objective import Objective as Objective
from keras_lottery.engines.task import Done as Done
from keras_lottery.engines.task import Facts as Facts
from keras_lottery.engines.task import Task as Task
from keras_lottery.engines.task import Training as Training
