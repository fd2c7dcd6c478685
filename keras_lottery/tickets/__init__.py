"""What one trains, and the pieces that make it: criteria, groupings, allocations,
repairs, schedules, rewinds and controls.

A ticket is masks and the weights, and the step of the schedule, to start from.
Training it gives a snapshot: initial, rewind-point and final weights. Pruning a
snapshot gives masks; rewinding it gives the next ticket.
"""

from keras_lottery.tickets.snapshot import Snapshot
from keras_lottery.tickets.ticket import Ticket, load_ticket

__all__ = ["Snapshot", "Ticket", "load_ticket"]
