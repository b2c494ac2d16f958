"""Makes the start quick: nothing looks for garbage meanwhile, and dataclasses compile no text.

Importing leaves no garbage, and looking for it was a tenth of the start. What runs for long (the
agent, the subcommands) calls gc.enable().
"""

import dataclasses
import gc

import quick_dataclasses

gc.disable()
quick_dataclasses.install(dataclasses)
