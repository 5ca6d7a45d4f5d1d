"""What listens by default can run side by side."""

from __future__ import annotations

import gateway
import run


def test_gateway_by_itself_takes_no_port_of_the_local_edition() -> None:
    options = {option.name: int(str(option.default)) for option in run.main.params if str(option.default).isdigit()}
    taken = {
        *(options["edge_port"] + i for i in range(3)),
        *(options["pool_port"] + i for i in range(3)),
        *(options["wan_port"] + i for i in range(9)),
        options["cloud_port"],
        options["console_port"],
    }
    (own,) = [option.default for option in gateway.main.params if option.name == "port"]
    assert own not in taken
