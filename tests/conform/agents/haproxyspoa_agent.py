"""An agent of haproxyspoa, as the example in its documentation: python haproxyspoa_agent.py PORT"""

import sys

from haproxyspoa.payloads.ack import AckPayload
from haproxyspoa.spoa_server import SpoaServer

agent = SpoaServer()


@agent.handler("check")
async def check(text: str):
    return AckPayload().set_txn_var("length", len(text))


agent.run(host="127.0.0.1", port=int(sys.argv[1]))
