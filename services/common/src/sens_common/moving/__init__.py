"""The move of measurements from rows of one value, as versions before stored them, into rows of a metric set (``sens.readings``).

It goes through time: through the first month (or chunk) of all devices, then the next one. Within a month it takes the devices in order of
their ids, as many at once as have some thousand values together; of a device with more than that, a stretch of time. That is a step: one
transaction, of some 0.2 s where the machine is not busy. It writes the readings, compares count and checksum of each series with the rows that
they were made of, and notes the time before which the device is moved. So the move can be ended at any moment and goes on where it was, and at any moment
each value is in exactly one of the two forms for who reads (``sens.former_rows_from``). The old tables are dropped when all is moved.

Workers store nothing meanwhile: they wait, and the stream keeps what comes. So nothing that is moved can meet something new.
"""

from typing import Final

MOVE_VERSION: Final = 13
"""Of the migration from which on workers store in the new form."""
