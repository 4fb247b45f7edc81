"""The broker's own process: ``python -m sens_mock_mqtt_broker.rumqttd CONFIGURATION``.

It lives as long as its standard input stays open. The service holds the other end, so that the broker goes with the service
however the service ends, SIGKILL included.
"""

import logging
import os
import sys
import threading

from iotcore import IotCoreBroker

from sens_common.logs import configure_logs


def _exit_when_input_closes() -> None:
    try:
        while os.read(sys.stdin.fileno(), 1024):
            pass
    finally:
        os._exit(0)  # rumqttd has no shutdown, and its threads don't end by themselves


def main() -> None:
    """Run the broker that the configuration file describes, for ever."""
    configure_logs("mock-mqtt-broker")
    # rumqttd traces every packet inside an error-level span, which its bridge to Python's logging turns into error records.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    threading.Thread(target=_exit_when_input_closes, name="wait for the end of input", daemon=True).start()
    IotCoreBroker(config_path=sys.argv[1]).run_forever()


if __name__ == "__main__":
    main()
