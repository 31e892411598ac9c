"""An agent of spoe-forge, as the example in its documentation: python spoe_forge_agent.py PORT"""

import sys

from spoe_forge import ActionScope, AgentContext, SetVarAction, SpoeForge

agent = SpoeForge(name="conform")


@agent.message("check")
def check(ctx: AgentContext) -> list[SetVarAction]:
    length = len(ctx.get_arg("text"))
    return [SetVarAction(scope=ActionScope.TRANSACTION, name="length", value=length)]


agent.run(host="127.0.0.1", port=int(sys.argv[1]))
